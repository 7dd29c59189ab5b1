"""``tr0n-bench tune``: a search over samplers' hyperparameters, the same for all."""

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
    trials: Annotated[int, typer.Option(min=1, help="Trials of each sampler, its own settings first.")] = 12,
    num: Annotated[int, typer.Option(min=1, help="Samples per variant and trial.")] = 64,
    metric: Annotated[str, typer.Option(help="Metric to improve, meaned over a sampler's variants.")] = (
        "class-accuracy"
    ),
    split: Annotated[str, typer.Option(help="Split of the data that prompts come from.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search.")] = 0,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Search every sampler's declared hyperparameters with one budget, on seeds and prompts of its own.

    The suite takes the result in with the key 'tuned'. Samplers without declared ranges stay as they are.
    """
    from bench.cli_output import progress_bars
    from bench.suite import load_suite
    from bench.tune import Budget, tuned_yaml
    from bench.tune import tune as search

    checked = load_suite(suite, overrides or ())
    budget = Budget(trials=trials, num=num, split=split, metric=metric, seed=seed)
    with progress_bars() as progress:
        found = search(checked, budget, device, store, progress)
    path = out or Path(suite).parent / "tuned" / f"{checked.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tuned_yaml(checked, budget, found), encoding="utf-8")
    for name, item in found.items():
        typer.echo(f"{name}\t{metric}\t{item.before:.4g}\t{item.value:.4g}\t{dict(item.settings)}")
    typer.echo(f"wrote {path}")
