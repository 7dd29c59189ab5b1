"""The sampler contract: ``init``, ``step`` and ``latent`` on a batch; one driver runs every sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench.conditioners.base import Conditioner
from bench.generators.base import AnyGenerator, Context, decode_in
from bench.streams import Streams


@dataclass
class Problem:
    """What a sampler works on: G, f and N conditions, with one random stream each.

    ``translator`` is None for samplers that do not use one. ``evaluations`` counts single samples
    through G (of a diffusion model through its denoiser too) and views through f, forwards and backwards
    apart; the last ``padding`` samples only fill the tile and are not counted. ``context`` is what G sees
    of each sample besides its latent, None for most; ``decode`` puts it in, so that no sampler needs to
    know.
    """

    generator: AnyGenerator
    conditioner: Conditioner
    condition_ND: Tensor
    streams: Streams
    translator: Any = None
    evaluations: Counter = field(default_factory=Counter)
    padding: int = 0
    context: Context | None = None

    def __len__(self) -> int:
        return len(self.streams)

    @property
    def counted(self) -> int:
        return len(self) - self.padding

    def decode(self, z_ND: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1]; counted."""
        self.count_decoding()
        return self.render(z_ND)

    def render(self, z_ND: Tensor) -> Tensor:
        """As :meth:`decode`, for pictures that the sampler does not need; not counted.

        A set-up that adapted the generator decodes in its place.
        """
        adapted = getattr(self.translator, "decode", None)
        if adapted is not None:
            return adapted(z_ND, self)
        return decode_in(self.generator, z_ND, self.context)

    def energy(self, z_ND: Tensor, step: int) -> Tensor:
        """Energies (N,) of latents (N, dim); counted."""
        return self.image_energy(self.decode(z_ND), step)

    def image_energy(self, images_NCHW: Tensor, step: int) -> Tensor:
        self.count_views("auxiliary_forwards")
        return self.conditioner.energy(images_NCHW, self.condition_ND, self.streams, step)

    def count_views(self, what: str) -> None:
        """Counts one evaluation of f, and where it is a sum of terms that of each term beside."""
        self.evaluations[what] += self.counted * self.conditioner.views
        for term, views in getattr(self.conditioner, "terms", {}).items():
            self.evaluations[f"{what}/{term}"] += self.counted * views

    def count_decoding(self, direction: Literal["forwards", "backwards"] = "forwards") -> None:
        """Counts one pass of G, and the calls of its denoiser where it is a diffusion model's pushforward."""
        self.evaluations[f"generator_{direction}"] += self.counted
        if calls := getattr(self.generator, "denoiser_calls", 0):
            self.evaluations[f"denoiser_{direction}"] += self.counted * calls

    def plain_energy(self, z_ND: Tensor, step: int) -> Tensor:
        """Energies (N,) of images without augmentation, where the conditioner has any; counted."""
        plain = getattr(self.conditioner, "plain_energy", None)
        if plain is None:
            return self.energy(z_ND, step)
        images = self.decode(z_ND)
        self.evaluations["auxiliary_forwards"] += self.counted
        return plain(images, self.condition_ND)

    def gradients(self, energy_N: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of each sample's own energy: the sum over samples is differentiated, never the mean.

        ``energy_N`` is cut off from its graph, which is freed here.
        """
        self.count_decoding("backwards")
        self.count_views("auxiliary_backwards")
        found = torch.autograd.grad(energy_N.sum(), inputs)
        energy_N.detach_()
        return found


class Sampler(ABC):
    """A sampler's dataclass derives from this. ``steps`` is 0 where nothing is refined."""

    steps: int = 0
    translators: ClassVar[tuple[str, ...]] = ("tr0n",)  # the kinds that it can use, where it uses any

    @property
    def uses_translator(self) -> bool:
        """Whether it needs something trained beforehand: a component of the suite's ``translators``."""
        return False

    @abstractmethod
    def init(self, problem: Problem) -> Any:
        """The state before the first step."""

    def step(self, problem: Problem, state: Any, t: int) -> Any:
        """The state after step t = 0 … steps - 1. ``state.energy_N`` (N,) is the energy before the step."""
        return state

    def images(self, problem: Problem, state: Any) -> Tensor:
        """Images (N, 3, H, W) of a state: G of its latent, unless the sampler makes them itself; counted."""
        return problem.decode(self.latent(problem, state))

    @abstractmethod
    def latent(self, problem: Problem, state: Any) -> Tensor:
        """The generator's latent (N, dim) of a state."""
