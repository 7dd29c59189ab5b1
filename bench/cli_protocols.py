"""``tr0n-bench manifest`` and ``sensitivity``: prompts frozen, and what each field of a protocol does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli_options import SetOption, SuiteArgument
from bench.errors import BenchError, nearest


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (manifest,):
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


def report_published(run_dirs: Sequence[Path], out: Path, ledger: Path) -> None:
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
