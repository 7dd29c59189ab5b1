"""Every metric beside an independent implementation on the same features, as a page of the docs.

    python tests/agreement/metrics.py [--out bench/docs/metrics-agreement.md]

Needs no weights: features, logits and embeddings are simulated (correlated, with variances over four orders
of magnitude, as of real networks). Exit code 1 where a figure is above the line's tolerance.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.metrics.accuracy import ClassAccuracy
from bench.metrics.clip_score import cosines
from bench.metrics.cmmd import cmmd
from bench.metrics.diversity import condition_diversity
from bench.metrics.fid_infinity import fid_infinity
from bench.metrics.frechet import Moments, frechet_distance
from bench.metrics.inception_score import inception_scores
from bench.metrics.kernels import KernelSums, cubic_kernel
from bench.metrics.kid import kid_subsets
from bench.metrics.memorisation import nearest_real
from bench.metrics.prdc import manifolds
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition, Evidence, Readout

OUT = Path(__file__).parents[2] / "bench" / "docs" / "metrics-agreement.md"
PACKAGES = ("torch-fidelity", "clean-fid", "torchmetrics", "prdc", "scikit-learn", "scipy", "numpy", "torch")
DIM = 128


@dataclass(frozen=True)
class Line:
    """One comparison. ``tolerance`` is relative; None where the other is known to be off, and why."""

    metric: str
    against: str
    on: str
    ours: float
    theirs: float
    tolerance: float | None
    note: str = ""

    @property
    def difference(self) -> float:
        return abs(self.ours - self.theirs) / max(abs(self.theirs), 1e-300)


def features(seed: int, num: int, shift: float = 0.0) -> np.ndarray:
    draws = np.random.default_rng(seed)
    mixed = np.linalg.qr(np.random.default_rng(99).normal(size=(DIM, DIM)))[0]
    scale = 10 ** (-np.linspace(0, 2, DIM))
    return (draws.normal(size=(num, DIM)) * scale @ mixed + shift).astype(np.float32)


def exact_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """From singular values of the centred features' cross product, without any covariance."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = ((rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross)


def ours_frechet(x: np.ndarray, y: np.ndarray) -> float:
    a, b = Moments.of(x), Moments.of(y)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def frechet_lines() -> Iterator[Line]:
    from cleanfid.fid import frechet_distance as clean_fid
    from torch_fidelity.metric_fid import fid_statistics_to_metric
    from torchmetrics.image.fid import _compute_fid

    for num, on in ((1000, f"n = 1000, F = {DIM}"), (80, f"n = 80 < F = {DIM}")):
        x, y = features(0, num), features(1, num, 0.02)
        given = [(m.mean, m.covariance) for m in map(Moments.of, (x, y))]
        singular = num <= DIM
        ours = ours_frechet(x, y)
        yield Line(
            "FID", "float64 reference (singular values, no covariance)", on, ours, exact_frechet(x, y), 1e-9
        )
        note = "theirs takes roots of rounded zeros" if singular else ""
        stats = [{"mu": mean, "sigma": covariance} for mean, covariance in given]
        theirs = fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
        yield Line("FID", "torch-fidelity", on, ours, theirs, None if singular else 1e-7, note)
        theirs = float(_compute_fid(*(torch.from_numpy(each) for pair in given for each in pair)))
        yield Line("FID", "torchmetrics", on, ours, theirs, None if singular else 1e-7, note)
        theirs = float(clean_fid(*given[0], *given[1]))
        note = "SciPy's sqrtm of a singular product" if singular else ""
        yield Line("FID", "clean-fid (SciPy sqrtm)", on, ours, theirs, None if singular else 1e-7, note)


def kernel_lines() -> Iterator[Line]:
    from cleanfid.fid import kernel_distance
    from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torchmetrics.image.kid import poly_mmd

    x, y = features(0, 400), features(1, 400, 0.05)
    wide = [torch.from_numpy(rows.astype(np.float64)) for rows in (x, y)]
    options = {"kid_subsets": 20, "kid_subset_size": 100, "verbose": False, "rng_seed": 2020}
    theirs = kid_features_to_metric(*wide, **options)
    values = kid_subsets(x, y, 20, 100, 2020)
    on = "20 subsets of 100"
    yield Line("KID", "torch-fidelity", on, values.mean(), theirs["kernel_inception_distance_mean"], 1e-9)
    yield Line(
        "KID, spread", "torch-fidelity", on, values.std(), theirs["kernel_inception_distance_std"], 1e-9
    )
    full = KernelSums.of(x, y, cubic_kernel).unbiased()
    on = "all of n = 400"
    yield Line("KID", "torchmetrics (poly_mmd)", on, full, float(poly_mmd(*wide)), 1e-9)
    theirs = kernel_distance(x.astype(float), y.astype(float), num_subsets=1, max_subset_size=400)
    yield Line("KID", "clean-fid", on, full, theirs, 1e-9)
    xx, yy, xy = (
        polynomial_kernel(a, b) for a, b in ((wide[0], wide[0]), (wide[1], wide[1]), (wide[0], wide[1]))
    )
    off = ~np.eye(400, dtype=bool)
    yield Line(
        "KID",
        "scikit-learn (polynomial_kernel)",
        on,
        full,
        xx[off].mean() + yy[off].mean() - 2 * xy.mean(),
        1e-9,
    )
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (wide[0].numpy(), wide[1].numpy())]
    xx, yy, xy = (rbf_kernel(unit[i], unit[j], gamma=1 / 200) for i, j in ((0, 0), (1, 1), (0, 1)))
    expected = 1000 * (xx.mean() + yy.mean() - 2 * xy.mean())
    yield Line("CMMD", "scikit-learn (rbf_kernel)", "n = 400 unit vectors", cmmd(*unit), expected, 1e-9)


def neighbour_lines() -> Iterator[Line]:
    from prdc import compute_prdc
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import NearestNeighbors
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = features(0, 500), features(1, 600, 0.02)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(y.astype(np.float64), x.astype(np.float64), 5)
    found = manifolds(x, y, 5)._asdict()
    names = {"precise": "precision", "density": "density", "recalled": "recall", "covered": "coverage"}
    for field, name in names.items():
        yield Line(name.capitalize(), "prdc", "k = 5", float(found[field].mean()), theirs[name], 1e-9)
    wide = [torch.from_numpy(rows.astype(np.float64)) for rows in (x, y)]
    theirs = prc_features_to_metric(
        *wide, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False
    )
    found = manifolds(x, y, 3)
    note = "no distance on an edge"
    yield Line(
        "Precision",
        "torch-fidelity (edges count)",
        "k = 3",
        found.precise.mean(),
        theirs["precision"],
        1e-6,
        note,
    )
    yield Line(
        "Recall", "torch-fidelity (edges count)", "k = 3", found.recalled.mean(), theirs["recall"], 1e-6, note
    )
    distance, _ = NearestNeighbors(n_neighbors=1).fit(wide[1].numpy()).kneighbors(wide[0].numpy())
    nearest = nearest_real(x, y)
    yield Line(
        "Nearest real distance",
        "scikit-learn (NearestNeighbors)",
        "mean",
        nearest.distance.mean(),
        distance.mean(),
        1e-9,
    )
    pairs = pairwise_distances(wide[1].numpy())
    np.fill_diagonal(pairs, np.inf)
    across = pairwise_distances(wide[0].numpy(), wide[1].numpy())
    authentic = across.min(1) > pairs.min(1)[across.argmin(1)]
    yield Line(
        "Authenticity",
        "scikit-learn (pairwise_distances)",
        "",
        nearest.authentic.mean(),
        authentic.mean(),
        1e-9,
    )
    names_of = [str(i % 50) for i in range(500)]
    inside = pairwise_distances(wide[0].numpy())
    means = [inside[k::50, k::50].sum() / (10 * 9) for k in range(50)]
    yield Line("Diversity", "scikit-learn (pairwise_distances)", "50 conditions of 10",
               condition_diversity(x, names_of, False)[0], float(np.mean(means)), 1e-9)  # fmt: skip


def readout_lines() -> Iterator[Line]:
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import top_k_accuracy_score
    from torch_fidelity.metric_isc import isc_features_to_metric

    draws = np.random.default_rng(5)
    logits = (3 * draws.normal(size=(1000, 100))).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=True, rng_seed=2020)
    values = inception_scores(logits, 10, 2020)
    yield Line(
        "Inception Score",
        "torch-fidelity",
        "10 splits of 100",
        values.mean(),
        theirs["inception_score_mean"],
        1e-9,
    )
    yield Line(
        "Inception Score, spread",
        "torch-fidelity",
        "10 splits of 100",
        values.std(),
        theirs["inception_score_std"],
        1e-7,
    )

    target = draws.integers(0, 100, 1000)
    logits[np.arange(1000), target] += 4
    classes = tuple(str(k) for k in range(100))
    conditions = tuple(
        Condition(id=str(i), kind="class", labels={"c": classes[k]}) for i, k in enumerate(target)
    )
    readout = Readout(logits={"c": logits}, classes={"c": classes})
    evidence = Evidence(conditions=conditions, readouts={"j": readout}, reference={})
    found = {s.metric: s.value for s in ClassAccuracy(judge="j", top=(5,)).compute(evidence).scores}
    for k, name in ((1, "class-accuracy"), (5, "class-accuracy-top5")):
        expected = top_k_accuracy_score(target, logits, k=k, labels=range(100))
        yield Line(
            f"Class accuracy, top {k}",
            "scikit-learn (top_k_accuracy_score)",
            "100 classes",
            found[name],
            expected,
            1e-9,
        )
    expected = torch.from_numpy(logits).double().softmax(1)[np.arange(1000), target].mean()
    yield Line(
        "Target probability",
        "torch (softmax, float64)",
        "100 classes",
        found["target-probability"],
        float(expected),
        1e-9,
    )

    image, text = draws.normal(size=(500, 64)), draws.normal(size=(500, 64))
    expected = torch.nn.functional.cosine_similarity(torch.from_numpy(image), torch.from_numpy(text)).mean()
    yield Line(
        "CLIP cosine",
        "torch (cosine_similarity, float64)",
        "n = 500",
        cosines(image, text).mean(),
        float(expected),
        1e-9,
    )

    x, reference = features(0, 2000), Moments.of(features(1, 2000, 0.02))
    found = fid_infinity(x, reference, 200, 15, 0)
    line = LinearRegression().fit(1 / found.sizes[:, None], found.distances)
    yield Line(
        "FID∞", "scikit-learn (LinearRegression)", "the same 15 distances", found.value, line.intercept_, 1e-9
    )


def lines() -> Iterator[Line]:
    ensure_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in (frechet_lines, kernel_lines, neighbour_lines, readout_lines):
            yield from part()


def page(found: list[Line]) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    rows = [
        "# Metrics beside independent implementations",
        "",
        "Written by `python tests/agreement/metrics.py`, on simulated features that both get alike. The",
        "difference is relative to the other's value; without a tolerance, the note says what is off there.",
        f"Versions: {versions}.",
        "",
        "| metric | against | on | ours | theirs | relative difference | tolerance | note |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    for line in found:
        tolerance = "" if line.tolerance is None else f"{line.tolerance:.0e}"
        shown = "0" if line.difference < 1e-14 else f"{line.difference:.0e}"
        rows.append(
            f"| {line.metric} | {line.against} | {line.on} | {line.ours:.8g} | {line.theirs:.8g} | {shown} | "
            f"{tolerance} | {line.note} |"
        )
    return "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    found = list(lines())
    out.write_text(page(found), encoding="utf-8")
    print(page(found))
    wrong = [line for line in found if line.tolerance is not None and not line.difference <= line.tolerance]
    for line in wrong:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
