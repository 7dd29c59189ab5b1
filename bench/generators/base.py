"""The generator contract: one flat latent with named blocks, a prior, a projection and a decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.streams import Streams


@dataclass(frozen=True, kw_only=True)
class Block:
    """One named slice of the flat latent.

    ``role`` says how TR0N treats it: "main" is modelled by the translator's mixture and moved by Langevin
    steps (``z``, ``w``); "auxiliary" is a point estimate moved by Adam (BigGAN's class embedding ``y``).
    ``bound`` limits each coordinate to [-bound, bound]; None leaves it free.
    """

    name: str
    dim: int
    role: Literal["main", "auxiliary"] = "main"
    bound: float | None = None


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """A flat latent of ``dim`` coordinates. ``sample`` draws the prior: Streams of N -> float32 (N, dim)."""

    blocks: tuple[Block, ...]
    sample: Callable[[Streams], Tensor]

    @property
    def dim(self) -> int:
        return sum(block.dim for block in self.blocks)

    @property
    def slices(self) -> dict[str, slice]:
        out, start = {}, 0
        for block in self.blocks:
            out[block.name] = slice(start, start + block.dim)
            start += block.dim
        return out

    def columns(self, role: str) -> Tensor:
        """Int64 indices of the coordinates whose block has this role."""
        parts = [
            torch.arange(s.start, s.stop) for b, s in zip(self.blocks, self.slices.values()) if b.role == role
        ]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def bounds(self) -> Tensor:
        """(dim,) float32, infinity where a coordinate is free."""
        return torch.cat(
            [torch.full((b.dim,), float("inf") if b.bound is None else b.bound) for b in self.blocks]
        )

    def prior(self, streams: Streams) -> Tensor:
        """Float32 (N, dim) drawn from the generator's own prior, projected."""
        return self.project(self.sample(streams))

    def project(self, z_ND: Tensor) -> Tensor:
        """The nearest point inside the bounds; identity for free blocks."""
        bound = self.bounds().to(z_ND)
        return torch.maximum(torch.minimum(z_ND, bound), -bound)


class Generator(Protocol):
    """A frozen pushforward G. ``decode`` is differentiable and treats every sample on its own."""

    latent: LatentSpace
    resolution: int

    def decode(self, z_ND: Tensor) -> Tensor:
        """Float32 images (N, 3, H, W) in [-1, 1] for latents (N, dim)."""
        ...


@runtime_checkable
class GeneratorConfig(Protocol):
    """A component's dataclass. ``resolution`` is known before any weight loads."""

    @property
    def resolution(self) -> int: ...

    def load(self, device: torch.device) -> Generator: ...
