"""Maximum mean discrepancy between two sets of rows: KID's unbiased and CMMD's biased estimator, float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]
BLOCK = 1024


def cubic_kernel(x_NF: np.ndarray, y_MF: np.ndarray) -> np.ndarray:
    """(x·y / F + 1)³, (N, M). Source: Bińkowski et al. 2018, arXiv:1801.01401."""
    return (x_NF @ y_MF.T / x_NF.shape[1] + 1) ** 3


def gaussian_kernel(sigma: float) -> Kernel:
    """exp(-|x - y|² / (2 sigma²)), (N, M)."""

    def kernel(x_NF: np.ndarray, y_MF: np.ndarray) -> np.ndarray:
        squared = (
            np.einsum("nf,nf->n", x_NF, x_NF)[:, None]
            + np.einsum("mf,mf->m", y_MF, y_MF)
            - 2 * (x_NF @ y_MF.T)
        )
        return np.exp(-squared.clip(min=0) / (2 * sigma**2))

    return kernel


@dataclass(frozen=True)
class KernelSums:
    """Row sums of the kernel, float64: of x among itself (N,) and of y among itself (M,), both without the
    diagonal, their diagonals (N,) and (M,), and across, by x (N,) and by y (M,). They are all that MMD
    estimates and their jackknife need."""

    xx: np.ndarray
    yy: np.ndarray
    diagonal_x: np.ndarray
    diagonal_y: np.ndarray
    xy: np.ndarray
    yx: np.ndarray

    @classmethod
    def of(cls, x_NF: np.ndarray, y_MF: np.ndarray, kernel: Kernel) -> KernelSums:
        """In blocks of rows: memory is O(block * (N + M))."""
        x, y = np.asarray(x_NF, np.float64), np.asarray(y_MF, np.float64)
        xx, diagonal_x = _within(x, kernel)
        yy, diagonal_y = _within(y, kernel)
        xy, yx = np.empty(len(x)), np.zeros(len(y))
        for start in range(0, len(x), BLOCK):
            part = kernel(x[start : start + BLOCK], y)
            xy[start : start + BLOCK] = part.sum(1)
            yx += part.sum(0)
        return cls(xx, yy, diagonal_x, diagonal_y, xy, yx)

    def unbiased(self) -> float:
        """MMD², each set's diagonal left out; its mean is 0 where the distributions are equal."""
        n, m = len(self.xx), len(self.yy)
        within = self.xx.sum() / (n * (n - 1)) + self.yy.sum() / (m * (m - 1))
        return float(within - 2 * self.xy.sum() / (n * m))

    def biased(self) -> float:
        """MMD² as the distance of the two empirical distributions: diagonals in, never negative but for
        rounding."""
        n, m = len(self.xx), len(self.yy)
        within = (self.xx.sum() + self.diagonal_x.sum()) / n**2
        within += (self.yy.sum() + self.diagonal_y.sum()) / m**2
        return float(within - 2 * self.xy.sum() / (n * m))

    def unbiased_variance(self) -> float:
        """Variance of :meth:`unbiased` by the delete-one jackknife over both sets (Arvesen 1969).

        Needs three rows or more in each set.
        """
        n, m = len(self.xx), len(self.yy)
        xx, yy, xy = self.xx.sum(), self.yy.sum(), self.xy.sum()
        within_x, within_y = xx / (n * (n - 1)), yy / (m * (m - 1))
        less_x = (xx - 2 * self.xx) / ((n - 1) * (n - 2)) + within_y - 2 * (xy - self.xy) / ((n - 1) * m)
        less_y = within_x + (yy - 2 * self.yy) / ((m - 1) * (m - 2)) - 2 * (xy - self.yx) / (n * (m - 1))
        return float((n - 1) * less_x.var() + (m - 1) * less_y.var())


@dataclass(frozen=True)
class LeftOutSums:
    """What is left of x's :class:`KernelSums` with each of K groups of its rows taken away, (K,): kernel sums
    among the rows that stay without the diagonal, of the diagonal, across to y, and their number."""

    xx: np.ndarray
    diagonal: np.ndarray
    xy: np.ndarray
    num: np.ndarray

    @classmethod
    def of(cls, sums: KernelSums, x_NF: np.ndarray, kernel: Kernel, group_N: np.ndarray) -> LeftOutSums:
        """From the sums of all rows and of the pairs within each group, exactly."""
        num_groups = int(group_N.max()) + 1
        within = np.zeros(num_groups)
        for k in range(num_groups):
            rows = np.asarray(x_NF[group_N == k], np.float64)
            if len(rows):
                within[k] = _within(rows, kernel)[0].sum()

        def of_group(values: np.ndarray) -> np.ndarray:
            return np.bincount(group_N, values, num_groups)

        return cls(
            sums.xx.sum() - 2 * of_group(sums.xx) + within,
            sums.diagonal_x.sum() - of_group(sums.diagonal_x),
            sums.xy.sum() - of_group(sums.xy),
            len(group_N) - of_group(np.ones(len(group_N))),
        )

    def unbiased(self, sums: KernelSums) -> np.ndarray:
        """:meth:`KernelSums.unbiased` of the rows that stay, (K,)."""
        m = len(sums.yy)
        across = 2 * self.xy / (self.num * m)
        return self.xx / (self.num * (self.num - 1)) + sums.yy.sum() / (m * (m - 1)) - across

    def biased(self, sums: KernelSums) -> np.ndarray:
        """:meth:`KernelSums.biased` of the rows that stay, (K,)."""
        m = len(sums.yy)
        of_y = (sums.yy.sum() + sums.diagonal_y.sum()) / m**2
        return (self.xx + self.diagonal) / self.num**2 + of_y - 2 * self.xy / (self.num * m)


def _within(x: np.ndarray, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    sums, diagonal = np.empty(len(x)), np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        part = kernel(x[start : start + BLOCK], x)
        index = np.arange(start, start + len(part))
        diagonal[index] = part[index - start, index]
        part[index - start, index] = 0.0
        sums[index] = part.sum(1)
    return sums, diagonal
