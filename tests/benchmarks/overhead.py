"""How much of a run's wall-clock is the harness: all that is not a generator, auxiliary or metric at work.

    python tests/benchmarks/overhead.py suites/quickstart.yaml [FOLDER]

Runs the suite in a fresh store, its run in FOLDER/run or one that is removed again. Prints seconds of the
wall-clock by what they went to, and those that the processor worked, which other load on the machine does not
count in (with OMP_NUM_THREADS=1 they are what an idle core would take, but for waiting for the disk).
Gradients are the generator's and the auxiliary's; training of translators is set-up work that the suite asks
for; intervals are part of the metrics. Everything else is the harness: noise, the sampler's own arithmetic,
files, hashes, tables, imports, the report. To import torch, which no network runs without, has its own line.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

BEGIN = time.perf_counter()
SPENT: Counter[str] = Counter()
WORKED: Counter[str] = Counter()
_inside = 0


def timed(name: str, function: Any) -> Any:
    """The function, its seconds added to ``SPENT[name]`` where it is not called from another timed one."""

    def call(*args: Any, **kwargs: Any) -> Any:
        global _inside
        begin, worked = time.perf_counter(), time.process_time()
        _inside += 1
        try:
            return function(*args, **kwargs)
        finally:
            _inside -= 1
            if _inside == 0:
                SPENT[name] += time.perf_counter() - begin
                WORKED[name] += time.process_time() - worked

    return call


def instrument() -> None:
    """Wraps what is not harness, where the assembly hands it out."""
    from bench import scoring, workshop
    from bench.assembly import Assembly
    from bench.components import METRICS, TRANSLATORS, component_class
    from bench.samplers.base import Problem

    Problem.gradients = timed("gradients", Problem.gradients)
    for kind, methods in (
        ("generator", ("decode",)), ("conditioner", ("embed", "encode", "energy")), ("judge", ("readout",))
    ):  # fmt: skip
        load = timed("networks loaded", getattr(Assembly, kind))

        def loaded(
            self: Assembly, name: str, load: Any = load, kind: str = kind, methods: Any = methods
        ) -> Any:
            part = load(self, name)
            for method in methods:
                if method not in vars(part):
                    setattr(part, method, timed(kind, getattr(part, method)))
            return part

        setattr(Assembly, kind, loaded)
    for kind in TRANSLATORS:
        setup = component_class("translators", kind)
        setup.train = timed("set-up training", setup.train)
    workshop.Workshop._synthesize = timed("synthetic pairs", workshop.Workshop._synthesize)
    for kind in METRICS:
        metric = component_class("metrics", kind)
        metric.compute = timed("metrics", metric.compute)
    scoring.with_intervals = timed("intervals", scoring.with_intervals)


def main(suite: str, kept: str | None = None) -> None:
    timed("torch imported", importlib.import_module)("torch")
    instrument()
    from bench.cli import main as run

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(kept or scratch)
        code = run(["run", suite, "--out", str(folder / "run"), "--store", str(folder / "store")])
    if code:
        sys.exit(code)
    total, worked = time.perf_counter() - BEGIN, time.process_time()
    SPENT["harness"], WORKED["harness"] = total - SPENT.total(), worked - WORKED.total()
    print(f"{'':22s}      wall-clock          processor")
    for name in SPENT:
        wall, cpu = SPENT[name], WORKED[name]
        print(f"{name:22s} {wall:8.1f} s {wall / total:6.1%} {cpu:8.1f} s {cpu / worked:6.1%}")
    print(f"{'all':22s} {total:8.1f} s        {worked:8.1f} s")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["suites/quickstart.yaml"]))
