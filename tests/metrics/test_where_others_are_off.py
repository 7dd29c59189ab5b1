"""Where a public implementation is known to be off: the harness is right, and the difference is shown."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench import identity
from bench.metrics.frechet import Moments, frechet_distance
from bench.metrics.prdc import manifolds
from bench.suite import load_suite
from bench.torchvision_guard import ensure_torchvision
from bench.worlds.digits import Digits

ensure_torchvision()


def features(seed: int, num: int, dim: int = 48) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return draws.normal(size=(num, dim)) * 10 ** (-np.linspace(0, 2, dim)) @ draws.normal(size=(dim, dim))


def exact(x: np.ndarray, y: np.ndarray) -> float:
    """From the singular values of centred rows, without a covariance."""
    a, b = ((rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * cross)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 20), (20, 500), (500, 20), (500, 400)])
def test_the_frechet_distance_of_few_samples(n, m):
    x, y = features(0, n), features(1, m)
    given = [each for rows in (x, y) for each in (Moments.of(rows).mean, Moments.of(rows).covariance)]
    assert frechet_distance(*given) == pytest.approx(exact(x, y), rel=1e-10)


def test_roots_of_rounded_zeros_are_seen_in_scipys_sqrtm_and_in_eigenvalues_of_the_product():
    from cleanfid.fid import frechet_distance as clean_fid
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    x, y = features(0, 30), features(1, 30)
    a, b = Moments.of(x), Moments.of(y)
    truth = exact(x, y)
    ours = abs(frechet_distance(a.mean, a.covariance, b.mean, b.covariance) / truth - 1)
    stats = [{"mu": each.mean, "sigma": each.covariance} for each in (a, b)]
    theirs = [fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(TypeError):
        warnings.simplefilter("ignore")  # SciPy 1.18 refuses clean-fid's call altogether
        theirs.append(float(clean_fid(a.mean, a.covariance, b.mean, b.covariance)))
    for value in theirs:
        assert abs(value / truth - 1) > 1e4 * max(ours, 1e-15)


def test_a_cache_key_holds_the_data_and_not_a_name(tmp_path, small_suite):
    from torch_fidelity.metric_fid import fid_featuresdict_to_statistics_cached

    class Extractor:
        def get_name(self) -> str:
            return "x"

    def theirs(rows: np.ndarray) -> np.ndarray:
        return fid_featuresdict_to_statistics_cached(
            {"f": torch.from_numpy(rows)}, "mine", Extractor(), "f",
            cache=True, cache_root=str(tmp_path), verbose=False,
        )["mu"]  # fmt: skip

    first, second = features(0, 30), features(1, 30)
    assert np.array_equal(theirs(first), theirs(second)), "the other data's statistics"

    images = Digits().load("val", tmp_path)
    pixels = images.pixels.copy()
    pixels[7, 0, 3, 3] ^= 1
    suite = load_suite(small_suite())
    keys = [
        identity.reference(suite, each.manifest_sha256, suite.judges["digits"]).key
        for each in (images, images, replace(images, pixels=pixels))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_density_of_a_copied_set():
    """prdc, whose distances have no tolerance, gave 1.0007 here (float64, prdc 0.2): by how much it is off
    depends on the processor, so that is not asserted."""
    rows = features(3, 2000)
    copies = rows[np.random.default_rng(0).permutation(2000)]
    assert manifolds(copies, rows, 5).density.mean() == pytest.approx(1.0, abs=1e-12)
