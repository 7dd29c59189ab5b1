"""Euclidean distances between rows of features, in float64 and in blocks: memory is O(block * M)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 1024
# Relative to |a|² + |b|²: below it a squared distance of the expanded form is rounding, and means 0.
ROUNDING = 1e-13


def squared_blocks(a_NF: np.ndarray, b_MF: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows and their squared distances (rows, M) to all of ``b_MF``, block after block.

    |a|² + |b|² - 2 a·b about the common mean, where it loses least; what is left of equal rows is set to 0,
    so that a copy is at distance 0 and not at that of rounding.
    """
    center = b_MF.mean(axis=0, dtype=np.float64)
    b = b_MF.astype(np.float64) - center
    norms_b = np.einsum("mf,mf->m", b, b)
    for start in range(0, len(a_NF), BLOCK):
        rows = slice(start, min(start + BLOCK, len(a_NF)))
        a = a_NF[rows].astype(np.float64) - center
        sums = np.einsum("nf,nf->n", a, a)[:, None] + norms_b
        squared = sums - 2 * (a @ b.T)
        squared[squared <= ROUNDING * sums] = 0.0
        yield rows, squared


def radii_squared(x_NF: np.ndarray, k: int) -> np.ndarray:
    """(N,): each row's squared distance to its k-th nearest other row (1 <= k < N)."""
    radii = np.empty(len(x_NF))
    for rows, squared in squared_blocks(x_NF, x_NF):
        index = np.arange(rows.start, rows.stop)
        squared[index - rows.start, index] = np.inf
        radii[rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii


def nearest_squared(a_NF: np.ndarray, b_MF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of ``a_NF``: squared distance to the nearest row of ``b_MF`` (N,) and that row's index
    (N,), the first of several at one distance."""
    distance, index = np.empty(len(a_NF)), np.empty(len(a_NF), np.int64)
    for rows, squared in squared_blocks(a_NF, b_MF):
        index[rows] = squared.argmin(1)
        distance[rows] = squared.min(1)
    return distance, index
