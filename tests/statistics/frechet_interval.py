"""How long the interval of FID takes at n = 5,000, d = 2,048 (``--samples``, ``--features`` for others).

Prints seconds for the interval that scores get (40 groups left out, 20 pairs of them, eight subsets for the
bias) and for a plain bootstrap, with the intervals and the truth; ``--classes`` for class conditions, which
weight what stays. Threads are those of OMP_NUM_THREADS. Figures of one run are in bench/docs/uncertainty.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulations import conditions, features

from bench.statistics.design import Design
from bench.statistics.frechet import frechet_bootstrap, frechet_left_out


def main(num_samples: int, dim: int, replicates: int, classes: int) -> None:
    world, design = features("gaussian", dim), Design.of(conditions(num_samples))
    if classes:
        world = world.in_classes(classes)
        design = Design.of(conditions(num_samples, num_samples // classes, "class"))
    x = world.draw(np.random.default_rng(0), num_samples).astype(np.float32)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"n = {num_samples}, d = {dim}, {classes} classes, {threads} threads", flush=True)
    begin, cpu = time.perf_counter(), time.process_time()
    found = frechet_left_out(x, world.reference, design)
    interval = found.interval(design.label)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(f"truth {world.truth:.3f}; value {found.value:.3f}, bias {found.bias}")
    print(
        f"left-out groups: [{interval.low:.3f}, {interval.high:.3f}] in {seconds:.1f} s, "
        f"{cpu:.1f} s of processors",
        flush=True,
    )
    if replicates:
        begin = time.perf_counter()
        values = np.array(list(frechet_bootstrap(x, world.reference, design, replicates)))
        low, high = 2 * found.value - np.quantile(values, [0.975, 0.025])
        seconds = time.perf_counter() - begin
        print(f"bootstrap of {replicates}: [{low:.3f}, {high:.3f}] in {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--replicates", type=int, default=60, help="of the bootstrap; 0: none")
    parser.add_argument("--classes", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.samples, arguments.features, arguments.replicates, arguments.classes)
