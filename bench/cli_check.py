"""``tr0n-bench check``, ``compare`` and ``history``: is a change as good as what it replaces?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bench.cli_options import DeviceOption, SetOption, SuiteArgument
from bench.errors import BenchError


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command()(check)
    app.command()(compare)
    history = typer.Typer(help="Results of many commits: trends and steps.", no_args_is_help=True)
    history.command("add")(history_add)
    history.command("show")(history_show)
    app.add_typer(history, name="history")


def _margins(given: list[str] | None) -> dict[str, float]:
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise BenchError(f"--margin {text}: is METRIC=NUMBER, such as clip-cosine=0.01.")
    return found


def check(
    suite: SuiteArgument,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|REVISION|FOLDER",
            help="A run, whose records and revision are the base; or a git revision; or a checkout.",
        ),
    ] = None,
    base_code: Annotated[
        str | None, typer.Option(metavar="REVISION|FOLDER", help="Code to time in place of the run's own.")
    ] = None,
    base_variant: Annotated[
        str | None, typer.Option(help="Compare two variants of the suite instead: the base.")
    ] = None,
    head_variant: Annotated[str | None, typer.Option(help="And the head.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")] = None,
    overrides: SetOption = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML file of settings: rounds, min_effect, margins, …")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Pairs of runs at the first look.")] = None,
    max_rounds: Annotated[int | None, typer.Option(help="Pairs of runs at most.")] = None,
    min_effect: Annotated[float | None, typer.Option(help="Difference that matters, as a share.")] = None,
    margin: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=NUMBER", help="Loss of a metric that is acceptable.")
    ] = None,
    speed: Annotated[bool, typer.Option(help="Measure speed.")] = True,
    quality: Annotated[bool, typer.Option(help="Draw, score and compare quality.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for check.md, check.json and junit.xml.")] = Path("check"),
    work: Annotated[
        Path | None, typer.Option(help="Folder that keeps both sides' artifacts; a temporary one by default.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Compare this code with a baseline, on speed (interleaved, on this device) and quality (paired).

    Exit code 0: same or faster, quality kept; 3: slower; 4: quality lost; 5: inconclusive.
    """
    from bench.check import gate, outputs
    from bench.check.settings import read_settings
    from bench.cli_output import print_table, progress_bars
    from bench.suite import load_suite

    load_suite(suite, overrides or ())  # a mistake in it shows before anything starts
    asked = read_settings(
        settings,
        _margins(margin),
        rounds=rounds,
        max_rounds=_at_least(max_rounds, rounds),
        min_effect=min_effect,
    )
    pair = base_variant is not None or head_variant is not None
    if (baseline is None) != pair or (pair and None in (base_variant, head_variant)):
        raise BenchError("name either --baseline, or both --base-variant and --head-variant.")
    with progress_bars() as told:
        if baseline is None:
            found = gate.check_variants(
                suite, overrides or (), str(base_variant), str(head_variant), asked,
                device=device, speed=speed, quality=quality, work=work, told=told,
            )  # fmt: skip
        else:
            with gate.find_base(baseline, base_code) as base:
                found = gate.check(
                    suite, overrides or (), base, asked, device=device, variants=variant or (), speed=speed,
                    quality=quality, work=work, told=told,
                )  # fmt: skip
    columns = ["cell", "verdict", "time", "A/A spread"]
    rows = [
        [
            cell.name,
            cell.verdict,
            outputs.speed_text(cell),
            f"{100 * cell.measured.noise:.1f} %" if cell.measured is not None else "",
        ]
        for cell in found.cells
    ]
    print_table(f"{found.head} against {found.base}", columns, rows)
    lost = [
        [cell.name, item.metric, item.verdict, outputs.quality_text(item)]
        for cell in found.cells
        for item in cell.quality
    ]
    if lost:
        print_table("quality", ["cell", "metric", "verdict", "base to head"], lost)
    for text in found.notices:
        typer.echo(f"noticed: {text}")
    for path in outputs.write(found, out):
        typer.echo(str(path))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in outputs.github_annotations(found):
            typer.echo(line)
    typer.echo(f"verdict: {found.verdict}")
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _at_least(max_rounds: int | None, rounds: int | None) -> int | None:
    """More rounds than the default's most are as many at most."""
    from bench.check.settings import CheckSettings

    if rounds is None or max_rounds is not None:
        return max_rounds
    return max(rounds, CheckSettings().max_rounds)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Run folder, or RUN::VARIANT.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Run folder, or RUN::VARIANT.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for compare.html and compare.csv.", show_default=False)
    ] = None,
) -> None:
    """Paired differences of quality and ratios of speed between two runs, or two variants."""
    from bench.cli_output import print_table
    from bench.report.compare import compare_runs, plain_rows, text_row, write_comparison

    rows = compare_runs(a, b)
    plain = plain_rows(rows)
    columns = list(plain[0]) if plain else ["cell"]
    title = f"B = {b} against A = {a}"
    print_table(title, columns, [text_row(row) for row in plain], right=columns[2:-1])
    if out is not None:
        for path in write_comparison(rows, title, out):
            typer.echo(str(path))


HistoryArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="The history, a .jsonl file that only grows.", show_default=False),
]


def history_add(
    file: HistoryArgument,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)],
    commit: Annotated[
        str | None, typer.Option(help="Revision; the one that the run names by default.")
    ] = None,
) -> None:
    """Append a run's final scores; what is there already is not added twice."""
    from bench.history import append, points_of

    typer.echo(f"{file}: {append(file, points_of(run, commit))} points added")


def history_show(
    file: HistoryArgument,
    out: Annotated[Path | None, typer.Option(help="Folder for history.html.", show_default=False)] = None,
) -> None:
    """Print where numbers stepped, and write the trends."""
    from bench.cli_output import print_table
    from bench.errors import ResultError
    from bench.history import read, series
    from bench.report.trends import write_trends

    found = series(read(file))
    if not found:
        raise ResultError(f"'{file}' holds no points yet: tr0n-bench history add FILE RUN.")
    rows = [
        [
            item.cell,
            item.metric,
            step.commit[:10],
            f"{step.before:.4g}",
            f"{step.after:.4g}",
            f"{100 * (step.ratio - 1):+.1f} %",
        ]
        for item in found
        if not item.retired
        for step in item.steps
    ]
    print_table(f"{file}: steps", ["cell", "metric", "commit", "before", "after", "change"], rows)
    retired = sum(item.retired for item in found)
    typer.echo(f"{len(found) - retired} series, {retired} retired, {len(rows)} steps")
    if out is not None:
        for path in write_trends(found, out):
            typer.echo(str(path))
