"""Samples per second of a Ray cluster of this machine, by number of workers (one thread each).

The clock starts when every worker has warmed up and stops with the last task; the stages before are not
timed. Rounds take turns, so that what else the machine does falls on all alike::

    python tests/engines/throughput.py --samples 1024 --shard 64 --workers 1 2 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter

from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.engines.ray import RayEngine
from bench.plan import plan
from bench.runner import choose_device
from bench.suite import Suite, suite_from_plain
from bench.workshop import STAGES, Workshop

WARM_UP_TASKS = 2


def the_suite(samples: int, shard: int, steps: int) -> Suite:
    """One cell: Langevin dynamics on the digits VAE."""
    plain = {
        "name": "throughput",
        "seed": 1,
        "data": {"digits": {"kind": "digits"}},
        "generators": {"vae": {"kind": "vae", "model": "digits-vae"}},
        "conditioners": {
            "class": {"kind": "classifier", "model": "digits-classifier-guide", "heads": ["digit"]}
        },
        "samplers": {"langevin": {"kind": "langevin", "steps": steps, "step_size": 0.1, "momentum": 0.5}},
        "judges": {"digits": {"kind": "classifier", "model": "digits-classifier-judge"}},
        "metrics": {"accuracy": {"kind": "class-accuracy", "judge": "digits"}},
        "protocol": {"reference_split": "val", "num_reference": 200},
        "samples": {"num": samples, "shard": shard, "tile": 32, "batch_size": 64},
        "variants": {
            "include": [{"data": "digits", "generator": "vae", "conditioner": "class", "sampler": "langevin"}]
        },
    }
    return suite_from_plain(plain, "throughput")


def samples_per_second(suite: Suite, workers: int) -> float:
    """Draws the suite into an empty store; the rate once all workers are warm. Raises what a task raised."""
    engine = RayEngine("local", workers)
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Assembly(suite, choose_device("cpu")), plan(suite), open_store(folder))
        try:
            (cell,) = workshop.cells
            tasks = workshop.tasks(cell, list(workshop.needs(cell).parts()))
            done: Counter[str] = Counter()
            begin, drawn = 0.0, 0
            for stage in STAGES:
                for outcome in engine.perform([task for task in tasks if task.stage == stage], workshop):
                    if outcome.error is not None:
                        raise outcome.error
                    if stage != "samples":
                        continue
                    if begin:
                        drawn += len(outcome.task.span or ())
                    done[outcome.worker] += 1
                    if not begin and len(done) == workers and min(done.values()) >= WARM_UP_TASKS:
                        begin = time.perf_counter()
            if not drawn:
                raise SystemExit(f"too few tasks for {workers} workers: raise --samples, or lower --shard")
            return drawn / (time.perf_counter() - begin)
        finally:
            engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--shard", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    suite = the_suite(chosen.samples, chosen.shard, chosen.steps)
    rates: dict[int, list[float]] = {workers: [] for workers in chosen.workers}
    for _ in range(chosen.rounds):
        for workers in chosen.workers:
            rates[workers].append(samples_per_second(suite, workers))
            print(f"{workers} workers: {rates[workers][-1]:.1f} samples/s", file=sys.stderr)
    first = statistics.median(rates[chosen.workers[0]])
    print(
        json.dumps(
            {
                str(workers): {
                    "samples_per_second": round(statistics.median(values), 2),
                    "rounds": [round(value, 2) for value in values],
                    "speed_up": round(statistics.median(values) / first, 3),
                }
                for workers, values in rates.items()
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
