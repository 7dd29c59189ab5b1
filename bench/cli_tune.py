"""``tr0n-bench tune``: a search over samplers' and set-ups' hyperparameters, the same for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli_options import DeviceOption, SetOption, StoreOption, SuiteArgument


def register(app: typer.Typer) -> None:
    """Adds the command of this module."""
    app.command()(tune)


def tune(
    suite: SuiteArgument,
    overrides: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write. [default: tuned/<suite name>.yaml beside the suite]", show_default=False
        ),
    ] = None,
    only: Annotated[
        str,
        typer.Option(metavar="GLOB", help="Search these alone, as 'samplers.*'."),
    ] = "*",
    variants: Annotated[
        str, typer.Option(metavar="GLOB", help="Judge by variants of such a name alone, as 'digits-vae/*'.")
    ] = "*",
    trials: Annotated[int, typer.Option(min=1, help="Trials of each search, the own settings first.")] = 12,
    num: Annotated[int, typer.Option(min=1, help="Samples per variant and trial.")] = 64,
    metric: Annotated[str, typer.Option(help="Metric to improve, meaned over the variants.")] = (
        "class-accuracy"
    ),
    split: Annotated[str, typer.Option(help="Split of the data that prompts come from.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Search every sampler's declared hyperparameters with one budget, on seeds and prompts of its own.

    Where a sampler declares none, those of its set-up. The suite takes the result in with the key 'tuned'.
    Each search that ends is written; others that the file holds stay.
    """
    from bench.cli_output import progress_bars
    from bench.suite import load_suite
    from bench.tune import Budget, Tuned, write_tuned
    from bench.tune import tune as search

    # from the suite's own settings, whatever an earlier search found
    checked = load_suite(suite, (*(overrides or ()), "tuned=null"))
    budget = Budget(trials=trials, num=num, split=split, metric=metric, seed=seed)
    path = out or Path(suite).parent / "tuned" / f"{checked.name}.yaml"

    def ended(item: Tuned) -> None:
        write_tuned(path, checked, budget, [item])
        settings = dict(item.settings)
        typer.echo(f"{item.subject.label}\t{metric}\t{item.before:.4g}\t{item.value:.4g}\t{settings}")

    with progress_bars() as progress:
        search(checked, budget, device, store, progress, only=only, variants=variants, found=ended)
    typer.echo(f"wrote {path}")
