"""Latents and images of generators from outside: stated in the suite, tried out on loading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.errors import SuiteError, WeightError
from bench.generators.base import Block, LatentSpace
from bench.streams import Streams

Values = Literal["[-1, 1]", "[0, 1]", "[0, 255]"]
_SCALE = {"[-1, 1]": (1.0, 0.0), "[0, 1]": (2.0, -1.0), "[0, 255]": (2 / 255, -1.0)}
LARGEST_DIFFERENCE = 1e-2  # of an image by itself and in company; half precision rounds by less


@dataclass(frozen=True, kw_only=True)
class LatentBlock:
    """One block of a latent: its coordinates, TR0N's role for it, its bounds and its prior.

    ``prior`` is a standard normal (clamped to ``bound`` where there is one), uniform in the bounds, or zero.
    """

    dim: int
    name: str = "z"
    role: Literal["main", "auxiliary"] = "main"
    bound: float | None = None
    prior: Literal["normal", "uniform", "zero"] = "normal"

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise SuiteError(f"dim must be at least 1, got {self.dim}.")
        if self.bound is not None and self.bound <= 0:
            raise SuiteError(f"bound must be positive or null, got {self.bound}.")
        if self.prior == "uniform" and self.bound is None:
            raise SuiteError("prior: 'uniform' needs a bound.")

    def sample(self, streams: Streams) -> Tensor:
        """Float32 (N, dim), not yet clamped."""
        purpose = f"prior:{self.name}"
        if self.prior == "uniform":
            assert self.bound is not None
            return streams.uniform(purpose, (self.dim,), low=-self.bound, high=self.bound)
        if self.prior == "zero":
            return torch.zeros(len(streams), self.dim, device=streams.device)
        return streams.normal(purpose, (self.dim,))


def check_latent(latent: tuple[LatentBlock, ...]) -> None:
    """Raises SuiteError for a latent without blocks, with two of one name, or without a main one."""
    names = [block.name for block in latent]
    if not latent or len(set(names)) < len(names):
        raise SuiteError(f"latent needs one or more blocks of different names, got {names}.")
    if all(block.role != "main" for block in latent):
        raise SuiteError("latent needs a block whose role is 'main'.")


def latent_space(latent: tuple[LatentBlock, ...]) -> LatentSpace:
    return LatentSpace(
        blocks=tuple(Block(name=b.name, dim=b.dim, role=b.role, bound=b.bound) for b in latent),
        sample=lambda streams: torch.cat([block.sample(streams) for block in latent], dim=1),
    )


class StatedGenerator:
    """G from a callable on latents (N, dim), or (N, *shape), whose images have the range ``values``."""

    def __init__(
        self,
        call: Callable[[Tensor], Any],
        latent: tuple[LatentBlock, ...],
        *,
        resolution: int,
        shape: tuple[int, ...] | None,
        values: Values,
    ):
        self._call, self._shape = call, shape
        self._scale, self._shift = _SCALE[values]
        self.latent, self.resolution = latent_space(latent), resolution

    def decode(self, z_ND: Tensor) -> Tensor:
        found = self._call(z_ND if self._shape is None else z_ND.view(-1, *self._shape))
        images = found.float() * self._scale + self._shift
        return images.clamp(-1, 1).expand(-1, 3, -1, -1)

    def try_out(self, what: str, device: torch.device) -> None:
        """Two images and their gradient.

        Raises WeightError where the network does not give images of the stated size, where their gradient
        is missing or not finite, and where an image depends on its company.
        """
        size = self.resolution
        z = self.latent.prior(Streams.from_seed(2, "try out", device=device))
        try:
            with torch.no_grad():
                raw = self._call(z if self._shape is None else z.view(-1, *self._shape))
        except Exception as error:
            shape = tuple((z if self._shape is None else z.view(-1, *self._shape)).shape)
            raise WeightError(f"{what} fails on latents {shape}: {type(error).__name__}: {error}") from error
        found = tuple(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        if found not in ((2, 3, size, size), (2, 1, size, size)):
            raise WeightError(
                f"{what} gives {found} for 2 latents; allowed: (2, 3, {size}, {size}) or "
                f"(2, 1, {size}, {size})."
            )
        with torch.enable_grad():
            z.requires_grad_()
            images = self.decode(z)
            if not images.requires_grad or not torch.isfinite(images).all():
                raise WeightError(f"{what} gives images without a gradient, or that are not finite.")
            alone = self.decode(z[:1])
        off = float((alone[0] - images[0]).detach().abs().max())
        if off > LARGEST_DIFFERENCE:
            raise WeightError(
                f"{what} gives another image where a second one is beside it (by {off:.2g} of 2). A sample "
                "may not depend on its batch: batch norm with batch statistics does."
            )
