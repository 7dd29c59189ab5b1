"""How often 95 % intervals hold the truth, and how often a comparison of equals says "different".

Prints a table, in minutes: ``python tests/statistics/coverage.py --repetitions 2000``. The tests run the same
simulations at a smaller number. Figures of one run are in bench/docs/uncertainty.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulations import (
    accuracy_trial,
    cosine_trial,
    frechet_pair_trial,
    frechet_trial,
    hits_trial,
    paired_trial,
    share,
)


def simulations(repetitions: int) -> Iterator[tuple[str, str, Callable[[], float]]]:
    """What is measured, of what, and the measurement."""
    few = max(2 * repetitions // 5, 1)
    for kind, dim, n in (
        ("gaussian", 64, 160), ("gaussian", 64, 512), ("rectified", 64, 160), ("rectified", 64, 512),
        ("heavy", 64, 160), ("heavy", 64, 512), ("gaussian", 192, 512), ("rectified", 192, 512),
        ("heavy", 192, 2048),
    ):  # fmt: skip
        yield "coverage", f"FID, {kind}, d = {dim}, n = {n}", partial(share, frechet_trial(kind, dim, n), few)
    for n, classes in ((160, 10), (510, 10), (2000, 100)):
        dim = 192 if n == 2000 else 64
        trial = frechet_trial("gaussian", dim, n, classes=classes)
        yield "coverage", f"FID, gaussian, d = {dim}, n = {n}, {classes} classes", partial(share, trial, few)
    for dim, alike in ((64, 0.3), (128, 0.1), (128, 0.3), (128, 0.6)):
        trial = frechet_trial("gaussian", dim, 512, each=8, alike=alike)
        label = f"FID, gaussian, d = {dim}, 64 prompts x 8, {alike:.0%} alike"
        yield "coverage", label, partial(share, trial, few)
    for n in (160, 512):
        trial = frechet_trial("heavy", 64, n, bootstrap=60)
        yield "coverage", f"FID by plain bootstrap, heavy, d = 64, n = {n}", partial(share, trial, few)
    for n, each, value, spread in (
        (512, 1, 0.9, 0), (512, 1, 0.5, 0), (512, 8, 0.8, 0.3), (2000, 4, 0.95, 0.2), (100, 1, 0.97, 0),
    ):  # fmt: skip
        label = f"accuracy {value}, n = {n}, {each} per prompt" + (", prompts unlike" if spread else "")
        yield "coverage", label, partial(share, accuracy_trial(n, each, value, spread), repetitions)
    yield (
        "coverage",
        "accuracy 0.9, n = 512, 10 classes",
        partial(share, accuracy_trial(510, 51, 0.9, 0, "class"), repetitions),
    )
    for n, each in ((100, 1), (512, 1), (512, 8), (5000, 1)):
        yield (
            "coverage",
            f"CLIP score, n = {n}, {each} per prompt",
            partial(share, cosine_trial(n, each), repetitions),
        )
    for n, each in ((100, 1), (512, 1), (512, 8)):
        label = f"paired CLIP difference, n = {n}, {each} per prompt"
        yield "coverage", label, partial(share, paired_trial(n, each, 0.02, rejects=False), repetitions)
        yield "false positives", label, partial(share, paired_trial(n, each, 0.0, rejects=True), repetitions)
        yield (
            "false positives",
            f"paired accuracy, n = {n}, {each} per prompt",
            partial(share, hits_trial(n, each), repetitions),
        )
    for kind, dim, n, shared in (
        ("gaussian", 64, 160, 0.0), ("heavy", 64, 160, 0.0), ("rectified", 64, 160, 0.0),
        ("gaussian", 64, 512, 0.0), ("heavy", 64, 512, 0.0), ("rectified", 64, 512, 0.0),
        ("gaussian", 64, 512, 0.5), ("gaussian", 192, 512, 0.0), ("heavy", 192, 512, 0.0),
        ("rectified", 192, 512, 0.0),
    ):  # fmt: skip
        trial = frechet_pair_trial(kind, dim, n, shared=shared)
        label = f"paired FID, {kind}, d = {dim}, n = {n}, {shared:.0%} shared"
        yield "false positives", label, partial(share, trial, few)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--only", default="", help="Part of the labels of simulations to run.")
    arguments = parser.parse_args()
    for what, label, measure in simulations(arguments.repetitions):
        if arguments.only in label:
            print(f"{what:16} {label:64} {100 * measure():6.1f} %", flush=True)
