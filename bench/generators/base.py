"""The generator contract: one flat latent with named blocks, a prior, a projection and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.streams import Streams
from bench.types import Condition

# What a generator sees besides the latent: name -> a tensor of shape (N, ...), one row per sample.
Context = Mapping[str, Tensor]


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
    """A flat latent of ``dim`` coordinates. ``sample`` draws the prior: Streams of N -> float32 (N, dim).

    ``stratified``, where there is one, draws numbered latents: it also takes their numbers, int64 (N,), and
    spreads them evenly over strata (class i mod K for latent i). Synthetic pairs are drawn with it.
    """

    blocks: tuple[Block, ...]
    sample: Callable[[Streams], Tensor]
    stratified: Callable[[Streams, Tensor], Tensor] | None = None

    @property
    def dim(self) -> int:
        return sum(block.dim for block in self.blocks)

    @cached_property
    def slices(self) -> dict[str, slice]:
        out, start = {}, 0
        for block in self.blocks:
            out[block.name] = slice(start, start + block.dim)
            start += block.dim
        return out

    def columns(self, role: str) -> Tensor:
        """Int64 indices of the coordinates whose block has this role."""
        return self._columns.get(role, torch.empty(0, dtype=torch.int64))

    @cached_property
    def _columns(self) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for block, own in zip(self.blocks, self.slices.values()):
            parts.setdefault(block.role, []).append(torch.arange(own.start, own.stop))
        return {role: torch.cat(found) for role, found in parts.items()}

    @cached_property
    def order(self) -> Tensor:
        """(dim,) int64: which of the main coordinates followed by the auxiliary ones each coordinate is."""
        return torch.cat([self.columns("main"), self.columns("auxiliary")]).argsort()

    @cached_property
    def bounds(self) -> Tensor:
        """(dim,) float32, infinity where a coordinate is free."""
        return torch.cat(
            [torch.full((b.dim,), float("inf") if b.bound is None else b.bound) for b in self.blocks]
        )

    @cached_property
    def _limits(self) -> dict[str, Tensor]:
        """Bounds of the coordinates that :meth:`project` is asked for, of such as have any."""
        named = {"all": self.bounds} | {role: self.bounds[at] for role, at in self._columns.items()}
        return {name: bounds for name, bounds in named.items() if bool(bounds.isfinite().any())}

    def prior(self, streams: Streams) -> Tensor:
        """Float32 (N, dim) drawn from the generator's own prior, projected."""
        return self.project(self.sample(streams))

    def numbered(self, streams: Streams, start: int) -> Tensor:
        """:meth:`prior` for latents number start, start + 1, …, stratified where the generator does so."""
        if self.stratified is None:
            return self.prior(streams)
        number = torch.arange(start, start + len(streams), device=streams.device)
        return self.project(self.stratified(streams, number))

    def project(self, z: Tensor, coordinates: str = "all") -> Tensor:
        """The nearest point inside the bounds; identity for free blocks.

        ``z`` is (..., dim), or holds the coordinates of one role only, whose name ``coordinates`` is then.
        """
        limit = self._limits.get(coordinates)
        if limit is None:
            return z
        limit = limit.to(z)
        return torch.maximum(torch.minimum(z, limit), -limit)


class Generator(Protocol):
    """A frozen pushforward G. ``decode`` is differentiable and treats every sample on its own.

    Optional: ``notes``, text by name for the record, on how images are computed (operators, precision).
    """

    latent: LatentSpace
    resolution: int

    def decode(self, z_ND: Tensor) -> Tensor:
        """Float32 images (N, 3, H, W) in [-1, 1] for latents (N, dim)."""
        ...


@runtime_checkable
class ContextGenerator(Protocol):
    """A frozen pushforward G(z; context): it sees a prompt or a class, or has noise of its own.

    ``context`` is called once per sample, before its sampler starts, and each row is of its sample alone;
    samplers never see it. ``conditions`` is None where nothing is asked for, as when synthetic pairs are
    made: a generator that cannot do without raises SuiteError then, and its configuration says so beforehand
    with ``needs_conditions``. Noise of a sample's own comes from ``streams``.
    """

    latent: LatentSpace
    resolution: int

    def context(self, conditions: Sequence[Condition] | None, streams: Streams) -> Context:
        """Tensors of N rows each."""
        ...

    def decode(self, z_ND: Tensor, context: Context) -> Tensor:
        """Float32 images (N, 3, H, W) in [-1, 1] for latents (N, dim) and as many rows of context."""
        ...


AnyGenerator = Generator | ContextGenerator


def context_of(
    generator: AnyGenerator, conditions: Sequence[Condition] | None, streams: Streams
) -> Context | None:
    """The context of N samples, None for a generator that has none."""
    return generator.context(conditions, streams) if isinstance(generator, ContextGenerator) else None


def context_rows(context: Context | None, index: Tensor | slice) -> Context | None:
    """The context of some of the samples."""
    return None if context is None else {name: values[index] for name, values in context.items()}


def decode_in(generator: Any, z_ND: Tensor, context: Context | None) -> Tensor:
    """G(z; context), or G(z) where there is no context."""
    return generator.decode(z_ND) if context is None else generator.decode(z_ND, context)


@runtime_checkable
class GeneratorConfig(Protocol):
    """A component's dataclass. ``resolution`` is known before any weight loads.

    Optional: ``needs_conditions``, True where G cannot make an image of nothing; ``kinds``, the kinds of
    condition that it takes.
    """

    @property
    def resolution(self) -> int: ...

    def load(self, device: torch.device) -> Generator: ...
