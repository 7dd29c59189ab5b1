"""Seconds of the Fréchet distance against torch-fidelity's and clean-fid's own functions, and their errors.

    python tests/benchmarks/frechet.py [--dim 2048] [--repeats 3] [--threads 1 2]

All get the same float64 moments of simulated features and run in turn, so that whatever else the machine
does falls on all alike; the median counts, after a warm-up. The reference of the error is the sum of singular
values of the product of the covariances' Cholesky factors, each exact to rounding times the largest.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from bench.metrics.frechet import Moments, frechet_distance
from bench.torchvision_guard import ensure_torchvision

Gaussians = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def moments(seed: int, dim: int, condition: float) -> tuple[np.ndarray, np.ndarray]:
    """Of 2.5 F correlated features whose variances fall by ``condition``."""
    draws = np.random.default_rng(seed)
    scale = condition ** (-np.linspace(0, 0.5, dim))
    mixed = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)) + np.eye(dim))[0]
    features = draws.normal(size=(5 * dim // 2, dim)) * scale @ mixed.T + 0.05 * scale.max()
    found = Moments.of(features)
    return found.mean, found.covariance


def exact(given: Gaussians) -> float:
    mean_a, a, mean_b, b = given
    cross = np.linalg.svd(np.linalg.cholesky(a).T @ np.linalg.cholesky(b), compute_uv=False).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(a) + np.trace(b) - 2 * cross)


def contenders() -> dict[str, Callable[[Gaussians], float]]:
    ensure_torchvision()
    from cleanfid.fid import frechet_distance as clean_fid
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    def torch_fidelity(given: Gaussians) -> float:
        first, second = ({"mu": given[i], "sigma": given[i + 1]} for i in (0, 2))
        return float(fid_statistics_to_metric(first, second, False)["frechet_inception_distance"])

    return {
        "tr0n-bench": lambda given: frechet_distance(*given),
        "torch-fidelity": torch_fidelity,
        "clean-fid": lambda given: float(clean_fid(*given)),
    }


def compare(dim: int, condition: float, threads: int, repeats: int) -> None:
    given = (*moments(1, dim, condition), *moments(2, dim, condition))
    truth = exact(given)
    functions = contenders()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    values: dict[str, float] = {}
    torch.set_num_threads(threads)
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = (*moments(1, 64, condition), *moments(2, 64, condition))
        for function in functions.values():
            function(small)
        for _ in range(repeats):
            for name, function in functions.items():
                begin = time.perf_counter()
                values[name] = function(given)
                seconds[name].append(time.perf_counter() - begin)
    ours = statistics.median(seconds["tr0n-bench"])
    print(f"F = {dim}, variances over {condition:.0e}, {threads} thread(s), median of {repeats}")
    for name, each in seconds.items():
        middle = statistics.median(each)
        error = abs(values[name] / truth - 1)
        print(f"  {name:15s} {middle:7.2f} s  {middle / ours:5.1f} x  relative error {error:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--conditions", type=float, nargs="+", default=[1e2, 1e6])
    chosen = parser.parse_args()
    for threads in chosen.threads:
        for condition in chosen.conditions:
            compare(chosen.dim, condition, threads, chosen.repeats)


if __name__ == "__main__":
    main()
