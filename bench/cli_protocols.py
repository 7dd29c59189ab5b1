"""``tr0n-bench manifest`` and ``sensitivity``: prompts frozen, and what each field of a protocol does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli_options import DeviceOption, SetOption, StoreOption, SuiteArgument
from bench.errors import BenchError, nearest


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (manifest, sensitivity):
        app.command()(command)


def manifest(
    suite: SuiteArgument,
    data: Annotated[
        str | None, typer.Argument(help="Data set of the suite; its only one where left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("prompts.jsonl"),
    num: Annotated[int | None, typer.Option(min=1, help="How many prompts; all where left out.")] = None,
    subset_seed: Annotated[
        int | None,
        typer.Option(
            "--seed", min=0, help="Take a random subset by this seed, instead of the first in id order."
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Freeze a data set's prompts in a manifest file, and print what a suite says to use it.

    Which captions it holds say protocol.caption (first, random, all) and protocol.reference_split.
    """
    import hashlib

    import torch

    from bench.assembly import Assembly
    from bench.protocols.prompts import manifest_bytes, sample
    from bench.store import atomic_write
    from bench.suite import load_suite

    checked = load_suite(suite, overrides or ())
    name = data if data is not None else next(iter(checked.data), "")
    if name not in checked.data or (data is None and len(checked.data) > 1):
        found = (
            f"the suite has no data '{name}'.{nearest(name, checked.data)}" if data else "name one data set:"
        )
        raise BenchError(f"{found} Declared: {', '.join(checked.data) or 'none'}.")
    protocol = checked.protocol
    prompts = sample(Assembly(checked, torch.device("cpu")).prompts(name), num, subset_seed)
    if not prompts:
        raise BenchError(f"data '{name}' has no captions to take prompts from.")
    content = manifest_bytes(
        prompts,
        {
            "split": protocol.reference_split,
            "caption": protocol.caption,
            "caption_seed": protocol.caption_seed,
            "subset_seed": subset_seed,
        },
    )
    atomic_write(out, content)
    typer.echo(f"{out}: {len(prompts)} prompts")
    typer.echo(
        f"protocol: {{caption: file, prompts: {out}, prompts_sha256: {hashlib.sha256(content).hexdigest()}}}"
    )


def sensitivity(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    goal: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="PROTOCOL", help="Go field by field from the run's protocol to this one."
        ),
    ] = None,
    fields: Annotated[
        list[str] | None, typer.Option("--field", help="Vary this field only; repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the table as CSV as well.", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Score a run's stored samples under other protocols: what each field does to each score.

    Nothing is drawn. Readouts under an equal transform are found in the artifact store; new ones are added.
    """
    import pandas as pd

    from bench.artifacts import open_store
    from bench.cli_output import print_table, progress_bars
    from bench.protocols import sensitivity as sensing
    from bench.protocols.shipped import NAMES
    from bench.recorded import read_suite
    from bench.runner import choose_device, default_store_url
    from bench.store import RunStore

    protocol = read_suite(RunStore(run_dir)).protocol
    known = (*sensing.ALTERNATIVES, "num_reference")
    for name in fields or ():
        if name not in known:
            raise BenchError(f"--field {name}: unknown.{nearest(name, known)} Allowed: {', '.join(known)}.")
    unanswered: list[str] = []
    if goal is None:
        changes = sensing.single_changes(protocol, fields or ())
    elif goal not in NAMES:
        raise BenchError(f"--to {goal}: unknown.{nearest(goal, NAMES)} Allowed: {', '.join(NAMES)}.")
    elif fields:
        raise BenchError("--field goes without --to, which says itself which fields change.")
    else:
        changes, unanswered = sensing.changes_to(protocol, goal)
    with progress_bars() as progress:
        found = sensing.sensitivity(
            run_dir,
            open_store(store or default_store_url()),
            choose_device(device),
            changes,
            progress=progress,
        )
    for cell in dict.fromkeys(item.cell for item in found):
        rows = [
            [item.metric, item.judge, item.change.label, f"{item.value:.5g}", f"{item.difference:+.4g}"]
            for item in found
            if item.cell == cell
        ]
        print_table(
            f"{cell}, run under {protocol.title}",
            ["metric", "judge", "change", "value", "against the run"],
            rows,
            right=["value", "against the run"],
        )
    if unanswered:
        typer.echo(f"needs other samples, not answered here: {', '.join(unanswered)}")
    if out is not None:
        from bench.store import atomic_write

        table = pd.DataFrame(
            [
                {
                    "cell": item.cell,
                    "metric": item.metric,
                    "judge": item.judge,
                    "change": item.change.label,
                    "value": item.value,
                    "difference": item.difference,
                }
                for item in found
            ]
        )
        atomic_write(out, table.to_csv(index=False).encode())
        typer.echo(str(out))


def report_published(run_dirs: Sequence[Path], out: Path, ledger: Path | None) -> None:
    """Prints and writes published numbers beside the measured ones, with a verdict per row."""
    from bench.cli_output import print_table
    from bench.report.published import published_rows, published_table, write_published

    table = published_table(published_rows(run_dirs, ledger))
    columns = ["system", "metric", "published", "measured", "verdict", "variant"]
    rows = [[_cell(row[column]) for column in columns] for row in table.to_dict("records")]
    print_table("published and measured", columns, rows, right=columns[2:4])
    for path in write_published(run_dirs, out, ledger):
        typer.echo(str(path))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)
