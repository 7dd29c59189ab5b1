"""``tr0n-bench``: arguments only; the work is done by the rooms, imported when needed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import cli_check, cli_protocols, cli_statistics, cli_trust, cli_tune
from bench.assets.cli import assets
from bench.cli_options import DeviceOption, SetOption, StoreOption, SuiteArgument
from bench.errors import BenchError

app = typer.Typer(
    name="tr0n-bench",
    help="Benchmark plug-and-play conditional generation: TR0N and its rivals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
zoo = typer.Typer(help="The small pretrained models that ship with the package.", no_args_is_help=True)
app.add_typer(zoo, name="zoo")
app.add_typer(assets, name="assets")
cli_trust.register(app)
cli_check.register(app)
cli_protocols.register(app)
cli_statistics.register(app)
cli_tune.register(app)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"tr0n-bench {version('tr0n-bench')}")
        except PackageNotFoundError:
            typer.echo("tr0n-bench (not installed)")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_components(
    table: Annotated[
        str | None, typer.Argument(help="One table, such as samplers; all of them where left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the components that a suite can name, with their fields and defaults."""
    from bench.cli_listing import listing, print_listing

    content = listing(table)
    if as_json:
        _print_json(content)
    else:
        print_listing(content)


@app.command()
def plan(
    suite: SuiteArgument,
    overrides: SetOption = None,
    store: StoreOption = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Predict wall-clock, storage and traffic on this many workers.")
    ] = None,
    pilot: Annotated[
        str,
        typer.Option(
            metavar="RUN", help="Run folder of the pilot that --gpus goes by; auto: the store alone."
        ),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a suite's cells and artifacts, what of them is cached, and estimated work; loads no weights.

    Weight files and data are hashed; a world that is rendered is rendered first, where it is not yet.
    """
    from bench.cli_listing import print_plan, print_prediction
    from bench.plan import plan as make_plan
    from bench.suite import load_suite

    if gpus is None and pilot != "auto":
        raise BenchError("--pilot goes with --gpus.")
    checked = load_suite(suite, overrides or ())
    the_plan = make_plan(checked)  # a mistake in the suite shows before anything is looked up
    import torch

    from bench.artifacts import open_store
    from bench.assembly import Assembly
    from bench.runner import default_store_url
    from bench.survey import survey

    assembly, opened = Assembly(checked, torch.device("cpu")), open_store(store or default_store_url())
    found = survey(assembly, the_plan, opened)
    prediction = None
    if gpus is not None:
        from bench.cost import predict

        prediction = predict(assembly, the_plan, found, opened, gpus, pilot, overrides or ())
    if as_json:
        _print_json(found.to_plain() | ({"cost": prediction.to_plain()} if prediction else {}))
        return
    print_plan(found)
    if prediction is not None:
        print_prediction(prediction)


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="Key of an artifact, or its first 6 characters or more.")],
    other: Annotated[str | None, typer.Argument(metavar="[KEY2]", help="A key to compare it with.")] = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what went into an artifact and what of it is stored; with two keys, what sets them apart."""
    from dataclasses import asdict

    from bench import explain as explaining
    from bench.artifacts import open_store
    from bench.runner import default_store_url

    opened = open_store(store or default_store_url())
    if other is None:
        found = explaining.explain(opened, key)
        if as_json:
            _print_json(found.to_plain())
        else:
            explaining.print_explanation(found)
        return
    old, new, differences = explaining.compare(opened, key, other)
    if as_json:
        _print_json({"old": old, "new": new, "differences": [asdict(item) for item in differences]})
    else:
        explaining.print_comparison(old, new, differences)


@app.command()
def run(
    suite: SuiteArgument,
    overrides: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. [default: results/<suite name>]", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    store: StoreOption = None,
    engine: Annotated[str, typer.Option(help="Who does the work: local, or ray (an extra).")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster; one of this machine's own where left out.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Ray workers; as many as the cluster holds by default.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the report into <run folder>/report.")] = True,
    doctor: Annotated[
        bool | None,
        typer.Option(
            "--doctor/--no-doctor",
            help="Examine judges and metrics first. [default: before a run that takes long]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Sample, score and record every cell of a suite, then write the report.

    What is in the artifact store is not made again: an interrupted run goes on where it stopped.
    """
    from bench.cli_output import progress_bars
    from bench.engines import make_engine
    from bench.plan import plan as make_plan
    from bench.suite import load_suite

    checked = load_suite(suite, overrides or ())
    make_plan(checked)  # a mistake in the suite shows before the runner is even imported
    from bench.runner import run as run_suite

    folder = out if out is not None else Path("results") / checked.name

    if doctor is not False:
        from bench.guards.doctor import examine_before_run
        from bench.runner import choose_device

        chosen = choose_device(device)
        examine_before_run(checked, chosen, store, always=doctor is True, run_dir=folder)
    worker = make_engine(engine, address, workers)
    with progress_bars() as progress:
        summary = run_suite(checked, folder, device, progress, store_url=store, engine=worker)
    if report:
        _report(
            [Path(summary.run_dir)],
            Path(summary.run_dir) / "report",
            keep=not summary.made,
            store=store,
            python=True,  # a run has just run it
        )
    _finish(summary)


@app.command()
def score(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    device: DeviceOption = "auto",
    store: StoreOption = None,
) -> None:
    """Compute a run's metrics again from its stored samples, without sampling."""
    from bench.cli_output import progress_bars
    from bench.runner import score as score_run

    with progress_bars() as progress:
        summary = score_run(run_dir, device, progress, store_url=store)
    _finish(summary)


@app.command()
def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders or bundles.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Report folder. [default: <first run>/report]", show_default=False)
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", help="Comma-separated; all of them by default.")
    ] = "html,md,latex,csv,png,svg",
    store: StoreOption = None,
    python: Annotated[
        bool, typer.Option("--python", help="Allow a suite that names code of its own, for real images.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Set the published numbers beside the measured ones instead.")
    ] = False,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="Published numbers, for --published. [default: suites/published.csv]", show_default=False
        ),
    ] = None,
) -> None:
    """Write pages, tables, grids and plots of one or more runs.

    The HTML page is one file that needs no network. Trajectories and nearest real images come from the
    artifact store, where it still holds them.
    """
    from bench.bundle_read import opened, report_folder
    from bench.report import read_formats

    chosen = read_formats(formats)

    with contextlib.ExitStack() as stack:
        folders = [stack.enter_context(opened(path)) for path in run_dirs]
        target = out if out is not None else report_folder(run_dirs[0])
        if published:
            cli_protocols.report_published(folders, target, ledger)
        else:
            _report(folders, target, formats=chosen, store=store, python=python)


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output where left out.", show_default=False)
    ] = None,
) -> None:
    """Print the JSON Schema of suite files, for editors."""
    from bench.suite.schema import schema_text

    if out is None:
        typer.echo(schema_text(), nl=False)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(schema_text(), encoding="utf-8")
    except OSError as error:
        raise BenchError(f"--out {out}: cannot write: {error.strerror or error}.") from error


@zoo.command("list")
def zoo_list() -> None:
    """List the shipped models with size, figures and sha256."""
    from bench.cli_listing import print_zoo

    print_zoo()


@zoo.command("train")
def zoo_train(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Recipe.", show_default=False)],
    device: DeviceOption = "auto",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps in all; the recipe's own by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for weights and card; the package's own by default.")
    ] = None,
) -> None:
    """Train a model of the zoo by its recipe; an interrupted training goes on where it stopped."""
    from bench.cli_output import progress_bars
    from bench.runner import choose_device
    from bench.zoo.train import train

    chosen = str(choose_device(device))
    with progress_bars() as progress:

        def show(step: int, total: int, losses: dict[str, float]) -> None:
            progress(name, step, total)

        path = train(name, device=chosen, steps=steps, out=out, report=show)
    typer.echo(str(path))


@zoo.command("verify")
def zoo_verify() -> None:
    """Check every shipped weight file against its card."""
    from bench.zoo.weights import verify_all

    results = verify_all()
    for name, result in results.items():
        typer.echo(f"{name}\t{result}")
    if not results or not all(result.startswith("ok") for result in results.values()):
        raise BenchError("some weight files are missing or damaged; install the package anew.")


def _print_json(content: Any) -> None:
    import json

    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def _report(
    run_dirs: list[Path],
    out: Path,
    *,
    keep: bool = False,
    formats: Sequence[str] | None = None,
    store: str | None = None,
    python: bool = False,
) -> None:
    """Writes a report; with ``keep`` one that is there already stays."""
    page = out / "report.html"
    if keep and page.is_file():
        typer.echo(str(page))
        return
    from bench.artifacts.faults import told
    from bench.errors import ResultError
    from bench.report import RUN_FORMATS, write_report

    with told("written", str(out), (OSError,), ResultError):
        files = write_report(list(run_dirs), out, formats or RUN_FORMATS, store_url=store, python=python)
    for path in files:
        typer.echo(str(path))


def _finish(summary: Any) -> None:
    """Prints what became of the cells; exit code 1 where one failed."""
    typer.echo(f"{summary.run_dir}: {summary.num_ok} cells ok, {summary.num_failed} failed")
    if summary.num_failed:
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 ok, 1 a failed cell or an error of the user's, 2 wrong usage, 128 + n for signal n.

    ``TR0N_BENCH_DEBUG=1`` shows the traceback of an error.
    """
    with _stoppable(), _rare_collections():
        try:
            app(args=arguments, prog_name="tr0n-bench")
        except BenchError as error:
            if os.environ.get("TR0N_BENCH_DEBUG") == "1":
                raise
            print(f"error: {error}", file=sys.stderr)
            return 1
        except Stopped as stop:
            print("stopped: what was finished is kept; the same command goes on from there.", file=sys.stderr)
            return 128 + stop.number
        except SystemExit as leave:
            return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    return 0


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Within the block Python looks for cycles of dead objects less often: the libraries leave half a million
    objects that stay, and to go through them all again and again takes seconds of a run."""
    before = gc.get_threshold()
    gc.set_threshold(10_000, 10, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived. Not an Exception, so that no cell records it as its own failure."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def _stop(number: int, frame: Any) -> None:
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, signal.SIG_DFL)  # whoever asks twice does not want to wait
    raise Stopped(number)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise :class:`Stopped`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
