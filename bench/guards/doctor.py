"""All checks of a suite's judges and metrics before anyone trusts their numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.assembly import Assembly
from bench.errors import BenchError, MetricError, ResultError
from bench.guards.canaries import Finding, Trial, each_judge
from bench.guards.extractors import known_answer, precision, same_on_devices
from bench.journal import Journal
from bench.plan import plan
from bench.store import RunStore, to_json
from bench.suite import Suite, load_suite

BUILT_IN = Path(__file__).with_name("built_in.yaml")
SAMPLES = 400
LONG_S = 1800
FEW_FORWARDS, MANY_FORWARDS = 200_000, 1_000_000


def built_in_suite() -> Suite:
    """The zoo's judges on the built-in worlds, with every metric that they can compute."""
    return load_suite(BUILT_IN)


def examine(assembly: Assembly, num: int = SAMPLES) -> Iterator[Finding]:
    """The findings of a suite, as they come; ``num`` real images are scored. Nothing is drawn or stored."""
    suite = assembly.suite
    yield from precision()
    for judge in suite.judges.values():
        yield known_answer(judge, assembly.device)
        yield same_on_devices(judge)
    trials: dict[str, Trial] = {}
    for data in suite.data:
        try:
            trials[data] = Trial.of(data, assembly.images(data), num)
        except BenchError as error:
            yield Finding(check="canaries", subject=data, status="skipped", text=str(error))
    judges = {name: partial(assembly.judge, name) for name in suite.judges}
    yield from each_judge(trials, judges, suite.metrics)


def is_long(suite: Suite, device: torch.device, store_url: str | None, run_dir: Path | None = None) -> bool:
    """Whether a run of the suite takes half an hour by the cost model, or, where the store holds nothing to
    measure by, a million images made by its generators. One that has finished in ``run_dir`` is not."""
    from bench.artifacts import open_store
    from bench.cost import predict
    from bench.runner import default_store_url
    from bench.survey import survey

    the_plan = plan(suite)
    forwards = sum(cell.work["generator_forwards"] for cell in the_plan.cells)
    if forwards < FEW_FORWARDS:
        return False
    store = open_store(store_url or default_store_url())
    if not store.keys("samples"):  # nothing to measure by, so that no data need be read
        return forwards >= MANY_FORWARDS
    if run_dir is not None and has_finished(suite, run_dir):
        return False
    assembly = Assembly(suite, device)
    prediction = predict(assembly, the_plan, survey(assembly, the_plan, store), store, 1)
    unmeasured = [cell for cell in the_plan.cells if cell.id in prediction.unmeasured]
    forwards = sum(cell.work["generator_forwards"] for cell in unmeasured)
    return prediction.remaining.total_s > LONG_S or forwards >= MANY_FORWARDS


def has_finished(suite: Suite, run_dir: Path) -> bool:
    """Whether the last attempt in a run's folder finished this very suite with these weights, all ok."""
    from bench.runner import weights_of

    last: dict[str, Any] = next(reversed(Journal(run_dir / "journal.jsonl").read()), {})
    if last.get("event") != "finished" or last.get("failed"):
        return False
    try:
        known = RunStore(run_dir).read_run()
    except ResultError:
        return False
    same_suite = known["suite"] == json.loads(to_json(suite.resolved()))
    return same_suite and known["provenance"]["weights"] == weights_of(suite)


def examine_before_run(
    suite: Suite, device: torch.device, store_url: str | None, *, always: bool, run_dir: Path | None = None
) -> None:
    """Examines a suite before a long run, or ``always``. Raises MetricError naming every check that failed:
    hours of drawing are not for numbers that do not measure."""
    if not always and not is_long(suite, device, store_url, run_dir):
        return
    failed = [item for item in examine(Assembly(suite, device)) if item.status == "failed"]
    if failed:
        lines = "".join(f"\n  {item.check}: {item.subject}: {item.text}" for item in failed)
        raise MetricError(
            f"{suite.name}: {len(failed)} checks of judges and metrics failed, so nothing is drawn.{lines}\n"
            "Mend them (tr0n-bench doctor shows all), or run with --no-doctor."
        )
