"""``tr0n-bench certify``, ``verify`` and ``bundle``: whether numbers can be drawn, and computed, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli_options import DeviceOption, SetOption, StoreOption, SuiteArgument


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (certify, verify, bundle):
        app.command()(command)


def certify(
    suite: SuiteArgument,
    overrides: SetOption = None,
    samples: Annotated[
        int, typer.Option(min=1, metavar="K", help="Samples of each cell to draw again, evenly spread.")
    ] = 16,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder whose records take the certificates. [default: results/<suite name>]",
            show_default=False,
        ),
    ] = None,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    tolerance: Annotated[
        int, typer.Option(min=0, help="Largest difference of a pixel (of 255) under the same tile.")
    ] = 1,
) -> None:
    """Draw samples of every cell again under other batch sizes, orders, shards and tiles, and compare.

    Run the suite first. Exit code 1 where images differ by more than the tolerance, or a cell has none.
    """
    from bench.suite import load_suite

    checked = load_suite(suite, overrides or ())
    from bench.artifacts import open_store
    from bench.certify import certify as certify_suite
    from bench.certify import largest_stream_difference
    from bench.cli_output import print_table, progress_bars
    from bench.runner import choose_device, default_store_url

    chosen = choose_device(device)
    folder = out if out is not None else Path("results") / checked.name
    opened = open_store(store or default_store_url())
    with progress_bars() as progress:
        cells = certify_suite(checked, folder, chosen, opened, num=samples, progress=progress)
    rows = [_row(cell.cell, cell.certificate, cell.problem, tolerance) for cell in cells]
    columns = ["cell", "samples", *_FIGURES, "verdict"]
    title = f"{checked.name}: largest differences of samples drawn again, pixels of 255"
    print_table(title, columns, rows, right=columns[1:-1])
    typer.echo(
        f"noise on {chosen} and on the CPU: largest difference {largest_stream_difference(chosen):.3g}"
    )
    if any(row[-1] != "certified" for row in rows):
        raise typer.Exit(1)


def verify(
    context: typer.Context,
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Run folder or bundle.", show_default=False)
    ],
    store: StoreOption = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest relative difference of a score computed again.")
    ] = 1e-9,
    python: Annotated[
        bool, typer.Option("--python", help="Allow a suite that names code of its own, which is run then.")
    ] = False,
) -> None:
    """Read every artifact of a run, compute keys and scores again, and say whether its records stand.

    Draws nothing, changes nothing, needs no weights and no data. Exit code 1 where something does not stand.
    A bundle is checked against its own store unless --store names another.
    """
    from bench.artifacts import open_store
    from bench.bundle_read import STORE, bundle_verdict, opened, read_mark
    from bench.cli_output import print_table
    from bench.runner import default_store_url
    from bench.verify import verify as verify_run

    with opened(results) as folder:
        mark = read_mark(folder)
        told = context.get_parameter_source("store")
        if mark is not None and (told is None or told.name != "COMMANDLINE"):
            store = str(folder / STORE)
        verdicts = verify_run(
            folder,
            open_store(store or default_store_url()),
            with_images=mark is None or mark["images"],
            rel=tolerance,
            python=python,
        )
        if mark is not None:
            verdicts.insert(0, bundle_verdict(folder, mark))
    rows = [
        [verdict.cell, ", ".join(verdict.stands), str(len(verdict.faults)), "; ".join(verdict.unchecked)]
        for verdict in verdicts
    ]
    print_table(f"{results}", ["cell", "stands", "does not", "unchecked"], rows, right=["does not"])
    faults = [
        [verdict.cell, fault.where, fault.what, fault.expected, fault.found]
        for verdict in verdicts
        for fault in verdict.faults
    ]
    if faults:
        print_table("does not stand", ["cell", "where", "what", "expected", "found"], faults)
        raise typer.Exit(1)
    typer.echo("every record stands")


def bundle(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="Run folder.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER_OR_TAR.GZ", help="Where to write the bundle.", show_default=False),
    ],
    store: StoreOption = None,
    images: Annotated[bool, typer.Option("--images", help="Take images and latents along.")] = False,
) -> None:
    """Write what a run's tables come from, for others to compute them again without weights, data or GPU."""
    from bench.artifacts import open_store
    from bench.bundle import bundle as write_bundle
    from bench.runner import default_store_url

    typer.echo(str(write_bundle(results, out, open_store(store or default_store_url()), images=images)))


_FIGURES = {
    "same tile: pixel": ("same_tile", "largest_pixel_difference"),
    "latent": ("same_tile", "largest_latent_difference"),
    "equal images": ("same_tile", "equal_images"),
    "other tiles: pixel": ("other_tiles", "largest_pixel_difference"),
    "latent ": ("other_tiles", "largest_latent_difference"),
    "equal images ": ("other_tiles", "equal_images"),
}


def _row(cell: str, certificate: Any, problem: str, tolerance: int) -> list[str]:
    if certificate is None:
        return [cell, "-", *("-" for _ in _FIGURES), problem]
    values = [certificate[group][name] for group, name in _FIGURES.values()]
    worst = certificate["same_tile"]["largest_pixel_difference"]
    verdict = "certified" if worst <= tolerance else f"pixels differ by {worst}, allowed are {tolerance}"
    return [cell, str(certificate["samples"]), *(f"{value:.3g}" for value in values), verdict]
