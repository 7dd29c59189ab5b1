"""Our CMMD beside the port of Google's code, on the same embeddings.

    PYTHONPATH=. python tests/side_by_side/cmmd.py --repo CHECKOUT

CHECKOUT is sayakpaul/cmmd-pytorch (f7673a9). Exit code 1 where they differ by more than 1e-9 relative in
float64. In float32, in which that code is run, three means near 1 are subtracted, and what is left of the
difference is told as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from bench.metrics.cmmd import cmmd


def embeddings(seed: int, num: int, shift: float) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(shift, 1.0, (num, 768))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    sys.path.insert(0, str(parser.parse_args().repo))
    from distance import mmd

    x, y = embeddings(0, 500, 0.0), embeddings(1, 700, 0.1)
    ours, theirs = cmmd(x, y), float(mmd(x, y))
    single = float(mmd(x.astype(np.float32), y.astype(np.float32)))
    print(f"ours {ours:.9g}, theirs {theirs:.9g} (float64), {single:.9g} (float32)")
    print(
        f"relative difference {abs(ours / theirs - 1):.1e} (float64), {abs(ours / single - 1):.1e} (float32)"
    )
    return int(abs(ours / theirs - 1) > 1e-9)


if __name__ == "__main__":
    sys.exit(main())
