"""Which samples of a cell belong together: what is drawn anew when the cell is imagined drawn again.

Prompts are a draw from all prompts: another run would have others, so a prompt's samples stay together.
Classes are all there are: another run would have the same, with other samples within each.

Suffixes: N samples, U units (what is drawn anew), K groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bench.streams import hash64
from bench.types import Condition

GROUPS = 40


@dataclass(frozen=True, eq=False)
class Design:
    """``unit_N`` numbers each sample's unit from 0 on; ``stratum_U`` each unit's stratum, within which units
    are drawn. ``group_N`` shares the units out to ``num_groups`` groups of nearly equal size, each with as
    much of every stratum: by what the units are, not where they stand, so that cells with the same conditions
    have the same groups. ``digest`` is equal where they are. ``of_reference`` says that the conditions
    describe images of the reference, so that samples share these images' chance."""

    unit_N: np.ndarray
    stratum_U: np.ndarray
    group_N: np.ndarray
    num_groups: int
    label: str
    digest: str
    of_reference: bool = False

    @classmethod
    def of(cls, conditions: Sequence[Condition], num_groups: int = GROUPS) -> Design:
        """The design of samples with these conditions, by their kind.

        Class conditions are strata, unless one of them has a single sample, where what happens within it
        cannot be known; conditions of other kinds are units.
        """
        names = np.array([condition.id for condition in conditions])
        ids, index_N, counts = np.unique(names, return_inverse=True, return_counts=True)
        is_class = bool(conditions) and conditions[0].kind == "class"
        if is_class or len(ids) == len(names):
            strata = is_class and counts.min() > 1
            keys = [f"{ids[c]}\x1f{k}" for c, k in zip(index_N, _replicates(index_N))]
            unit_N = np.arange(len(names))
            stratum_U = index_N if strata else np.zeros(len(names), int)
            label = f"samples within {len(ids)} classes" if strata else f"{len(names)} samples"
        else:
            keys, unit_N, stratum_U = ids.tolist(), index_N, np.zeros(len(ids), int)
            label = f"{len(ids)} conditions"
        order_U = np.array([hash64("units", key) for key in keys])
        ranked = np.lexsort((order_U, stratum_U))
        num = min(num_groups, len(keys))
        group_U = np.empty(len(keys), int)
        group_U[ranked] = np.arange(len(keys)) % max(num, 1)
        group_N = group_U[unit_N]
        digest = hashlib.blake2b(group_N.astype("<i8").tobytes(), digest_size=8).hexdigest()
        return cls(unit_N, stratum_U, group_N, num, label, digest)

    @property
    def num_units(self) -> int:
        return len(self.stratum_U)

    @cached_property
    def sizes_K(self) -> np.ndarray:
        """How many samples each group has (0: all of its samples were taken away)."""
        return np.bincount(self.group_N, minlength=self.num_groups).astype(float)

    def coarser(self, num_groups: int) -> Design:
        """The same design with groups put together to fewer."""
        if num_groups >= self.num_groups:
            return self
        digest = f"{self.digest}-{num_groups}"
        return replace(self, group_N=self.group_N % num_groups, num_groups=num_groups, digest=digest)

    def take(self, rows: np.ndarray) -> Design:
        """The design of some of the samples, groups as they were; units of which none is left are gone."""
        units, unit_N = np.unique(self.unit_N[rows], return_inverse=True)
        return replace(self, unit_N=unit_N, stratum_U=self.stratum_U[units], group_N=self.group_N[rows])


def _replicates(index_N: np.ndarray) -> np.ndarray:
    """How many samples of the same condition stand before each."""
    ranked = np.argsort(index_N, kind="stable")
    counts = np.bincount(index_N)
    within = np.arange(len(index_N)) - np.repeat(np.cumsum(counts) - counts, counts)
    replicates = np.empty(len(index_N), int)
    replicates[ranked] = within
    return replicates
