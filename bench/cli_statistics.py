"""``tr0n-bench power`` and ``doctor``: what comparisons can tell, and whether metrics measure at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli_options import DeviceOption, SetOption
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.guards.canaries import Finding


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    for command in (power, replicates, doctor):
        app.command()(command)


_Assignments = list[str] | None


def power(
    target: Annotated[
        Path, typer.Argument(metavar="SUITE|RUN", help="Suite file, or run folder.", show_default=False)
    ],
    overrides: SetOption = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder whose spread is taken. [default: results/<suite name>]", show_default=False
        ),
    ] = None,
    spread: Annotated[
        _Assignments,
        typer.Option(
            metavar="METRIC=SD", help="Assume a spread of a sample's paired difference; repeatable."
        ),
    ] = None,
    difference: Annotated[
        _Assignments,
        typer.Option(metavar="METRIC=VALUE", help="Say the samples needed to find this; repeatable."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=2, help="Samples per cell; the suite's own by default.")
    ] = None,
    chance: Annotated[
        float, typer.Option("--power", min=0.5, max=0.999, help="Chance to find a difference that is there.")
    ] = 0.8,
    alpha: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Chance to find one that is not there.")
    ] = 0.05,
    comparisons: Annotated[
        int, typer.Option(min=1, help="Comparisons that share alpha, as in a table with Holm's correction.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say the smallest difference that paired comparisons can find, and the samples needed for a given one.

    The spread of paired differences is that of a finished run's variants, or assumed. Nothing is drawn.
    """
    from bench.statistics.power import assumed, detectable, samples_needed

    stated, wanted = _numbers("--spread", spread), _numbers("--difference", difference)
    spreads, own_samples, source = _spreads(target, overrides, run, needed=not stated)
    spreads = [item for item in spreads if item.metric not in stated] + assumed(stated)
    known = {item.metric for item in spreads}
    if unknown := wanted.keys() - known:
        raise BenchError(
            f"--difference: no spread is known of '{min(unknown)}'. Known: {', '.join(sorted(known))}."
        )
    num = samples or own_samples
    if num is None:
        raise BenchError("--samples is missing: a spread alone does not say how many there are.")
    options: dict[str, Any] = {"alpha": alpha, "power": chance, "comparisons": comparisons}
    rows: list[dict[str, Any]] = [
        {
            "group": item.group,
            "metric": item.metric,
            "judge": item.judge,
            "samples": num,
            "spread": item.sd,
            "pairs": item.pairs,
            "detectable": detectable(item.sd, num, **options),
            "difference": wanted.get(item.metric),
            "samples_needed": samples_needed(item.sd, wanted[item.metric], **options)
            if item.metric in wanted
            else None,
        }
        for item in spreads
    ]
    if as_json:
        import json

        typer.echo(json.dumps({**options, "source": source, "rows": rows}, indent=2))
        return
    _print_power(rows, f"n = {num}, power {chance:g}, alpha {alpha:g} over {comparisons}; {source}")


def _print_power(rows: list[dict[str, Any]], title: str) -> None:
    from bench.cli_output import print_table

    columns = ["table", "metric", "judge", "pairs", "spread", "detectable", "difference", "samples needed"]
    keys = ("group", "metric", "judge", "pairs", "spread", "detectable", "difference", "samples_needed")

    def shown(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    print_table(title, columns, [[shown(row[key]) for key in keys] for row in rows], right=columns[3:])


def _spreads(
    target: Path, overrides: list[str] | None, run: Path | None, *, needed: bool
) -> tuple[list[Any], int | None, str]:
    """Measured spreads, the samples per cell, and where spreads come from."""
    from bench.errors import ResultError
    from bench.statistics.power import measured
    from bench.store import RunStore

    if (target / "run.json").is_file():
        folder, num = target, int(RunStore(target).read_run()["suite"]["samples"]["num"])
    else:
        from bench.suite import load_suite

        suite = load_suite(target, overrides or ())
        folder, num = run or Path("results") / suite.name, suite.samples.num
    try:
        return measured(RunStore(folder)), num, f"spread measured in {folder}"
    except ResultError as error:
        if needed:
            raise ResultError(f"{error}") from error
        return [], num, "spread assumed"


def _numbers(option: str, values: _Assignments) -> dict[str, float]:
    found = {}
    for item in values or ():
        name, _, text = item.rpartition("=")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not name or not found[name] > 0 or not math.isfinite(found[name]):
            raise BenchError(f"{option} {item}: write METRIC=NUMBER with a number above 0.")
    return found


def replicates(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN...", help="Runs of one suite with other seeds.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how far scores spread between runs of one suite with other seeds (--set seed=1, 2, …).

    "ratio" is the spread between runs over the standard error within one: well above 1, seeds matter more
    than samples, and one run's intervals are too narrow.
    """
    from bench.statistics.replicates import between_runs
    from bench.store import RunStore

    found = between_runs([RunStore(path) for path in run_dirs])
    if as_json:
        import json
        from dataclasses import asdict

        from bench.store import finite

        typer.echo(json.dumps(finite([asdict(item) for item in found]), indent=2))
        return
    from bench.cli_output import print_table

    columns = ["data", "variant", "metric", "judge", "mean", "low", "high", "sd", "ratio"]
    rows = []
    for item in found:
        mean = sum(item.values) / len(item.values)
        low, high = item.interval.low, item.interval.high
        numbers = [f"{value:.4g}" for value in (mean, low, high, item.sd)]
        ratio = f"{item.sd / item.within:.2f}" if item.within > 0 else ""
        rows.append([item.data, item.variant, item.metric, item.judge or "", *numbers, ratio])
    print_table(f"spread between {len(run_dirs)} runs", columns, rows, right=columns[4:])


def doctor(
    suite: Annotated[
        Path | None,
        typer.Argument(metavar="[SUITE]", help="Suite file; the shipped judges where left out."),
    ] = None,
    overrides: SetOption = None,
    samples: Annotated[
        int, typer.Option(min=20, help="Real images to score, and as many to compare with.")
    ] = 400,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try a suite's judges and metrics on real images made worse, and on pictures with known answers.

    Exit code 1 where a metric does not move as it must, or a judge sees what it did not use to see.
    """
    from bench.assembly import Assembly
    from bench.guards.doctor import built_in_suite, examine
    from bench.runner import choose_device
    from bench.suite import load_suite

    checked = built_in_suite() if suite is None else load_suite(suite, overrides or ())
    findings = list(examine(Assembly(checked, choose_device(device)), samples))
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(item) for item in findings], indent=2))
    else:
        print_findings(f"{checked.name}: judges and metrics examined", findings)
    if any(item.status == "failed" for item in findings):
        raise typer.Exit(1)


def print_findings(title: str, findings: Sequence[Finding]) -> None:
    """Findings as a table, failed ones first."""
    from bench.cli_output import print_table

    order = ("failed", "passed", "skipped")
    rows = [
        [item.status, item.check, item.subject, item.text]
        for item in sorted(findings, key=lambda item: order.index(item.status))
    ]
    print_table(title, ["verdict", "check", "of", "found"], rows)
