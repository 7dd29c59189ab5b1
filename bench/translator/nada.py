"""StyleGAN-NADA: a generator adapted to a text by the directional CLIP loss (arXiv:2108.00946)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import SuiteError
from bench.generators.base import context_rows, decode_in
from bench.payload import pack, unpack
from bench.ranges import Range
from bench.samplers.base import Problem
from bench.translator.base import ConditionRows, Ground, Progress, Trained
from bench.translator.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class Nada:
    """One adapted copy of G per text: mean of 1 - cos(dI, dT).

    dT is the direction from ``source`` to the condition's text among unit text embeddings, meaned over
    ``templates`` ("{}" is the text); dI the direction from the frozen generator's image of a latent to the
    adapted one's, among unit image embeddings. Adam(rate, betas 0 and 0.992). ``frozen`` lists parameters
    that stay, by the beginnings of their names (the source: mapping network and ToRGB; it also picks layers
    anew at each step by their latents' gradients, which only a W+ space has). Its cost is part of its row:
    seconds and samples of the set-up. Needs a text conditioner that embeds texts and images (CLIP), and a
    generator whose network is at hand. Source: rinongal/StyleGAN-nada.
    """

    source: str = "a picture"
    templates: tuple[str, ...] = ("{}",)
    steps: int = 300
    batch_size: int = 2
    learning_rate: float = 0.0016
    frozen: tuple[str, ...] = ()
    seed: int = 2
    num_pairs: int = 0

    tunable: ClassVar[Mapping[str, Range]] = {
        "learning_rate": Range(low=1e-4, high=3e-2),
    }

    per_condition = True
    kinds = ("text",)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SuiteError(f"nada: {name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise SuiteError(f"nada: learning_rate must be positive, got {self.learning_rate}.")
        if not self.templates or any("{}" not in template for template in self.templates):
            raise SuiteError("nada: templates must each hold '{}', where the text goes.")
        if self.num_pairs:
            raise SuiteError("nada: num_pairs must be 0; it draws from the prior as it trains.")

    def direction(self, ground: Ground, text: str) -> Tensor:
        """dT, (D,) of unit norm."""
        embed: Any = ground.conditioner

        def mean(words: str) -> Tensor:
            texts = [template.replace("{}", words) for template in self.templates]
            return F.normalize(embed.embed_texts(texts), dim=1).mean(0)

        with torch.no_grad():
            return F.normalize(mean(text) - mean(self.source), dim=0)

    def train(self, ground: Ground, pairs: Pairs, progress: Progress | None = None) -> TrainedNada:
        if not hasattr(ground.conditioner, "embed_texts"):
            raise SuiteError("nada: the conditioner must embed texts and images. Use a CLIP conditioner.")
        states: list[dict[str, Tensor]] = []
        for k, condition in enumerate(ground.conditions):
            adapted = adaptable(ground.generator)
            for t, loss in enumerate(self._steps(ground, adapted, condition)):
                if not torch.isfinite(loss):
                    raise SuiteError(
                        f"nada: the loss for '{condition.id}' is not finite. Lower learning_rate."
                    )
                if progress is not None and ((t + 1) % 20 == 0 or t + 1 == self.steps):
                    progress(k * self.steps + t + 1, len(ground.conditions) * self.steps)
            states.append({name: value.detach().cpu() for name, value in own_state(adapted).items()})
        return TrainedNada(ground, states, ground.embedded())

    def _steps(self, ground: Ground, adapted: Any, condition: Any):
        """Trains in place; yields the loss of each step."""
        network, latent = adapted.network, ground.generator.latent
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen) if self.frozen else True)
        moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(moving, lr=self.learning_rate, betas=(0.0, 0.99**0.8))
        wanted, nothing = self.direction(ground, condition.text), torch.zeros(self.batch_size, 1)
        for t in range(self.steps):
            streams = ground.streams(self.batch_size, "nada", self.seed, condition.id, t)
            problem = ground.problem(streams, nothing, [condition] * self.batch_size)
            z = latent.prior(streams)
            with torch.no_grad():
                before = F.normalize(ground.conditioner.encode(problem.decode(z), streams), dim=1)
            with torch.enable_grad():
                images = decode_in(adapted, z, problem.context)
                after = F.normalize(ground.conditioner.encode(images, streams), dim=1)
                # At the start both are equal, and a direction of length 0 has no gradient.
                loss = (1 - F.cosine_similarity(after - before + 1e-6, wanted[None], dim=1)).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            optimizer.step()
            ground.evaluations["generator_forwards"] += self.batch_size
            ground.evaluations["generator_backwards"] += self.batch_size
            ground.evaluations["auxiliary_forwards"] += 2 * self.batch_size
            ground.evaluations["auxiliary_backwards"] += self.batch_size
            yield loss.detach()

    def read(self, content: bytes, ground: Ground) -> TrainedNada:
        arrays, meta = unpack(content)
        states: list[dict[str, Tensor]] = [{} for _ in ground.conditions]
        for name, value in arrays.items():
            number, _, rest = name.partition("/")
            if number != "conditions":
                states[int(number)][rest] = torch.from_numpy(value)
        trained = TrainedNada(ground, states, torch.from_numpy(arrays["conditions"]).to(ground.device))
        trained.took(meta)
        return trained


def adaptable(generator: Any) -> Any:
    """A copy of the generator with a network of its own. Raises SuiteError where it shows none."""
    if not isinstance(getattr(generator, "network", None), nn.Module):
        raise SuiteError(
            "nada: this generator's network is not at hand (an attribute 'network'), so it cannot be adapted."
        )
    copied = copy.copy(generator)
    copied.network = copy.deepcopy(generator.network)
    return copied


def own_state(generator: Any) -> dict[str, Tensor]:
    """The parameters, and not the buffers, by name: what adaptation changes."""
    return dict(generator.network.named_parameters())


class TrainedNada(Trained):
    """An adapted generator per condition: ``decode`` takes the place of the frozen one's."""

    def __init__(self, ground: Ground, states: list[dict[str, Tensor]], condition_KD: Tensor):
        self.adapted = adaptable(ground.generator)
        super().__init__(self.adapted.network, ground.device)
        self.states, self.condition_KD = states, condition_KD
        self.rows = ConditionRows(condition_KD)

    def arrays(self) -> dict[str, Tensor]:
        named = {f"{k}/{name}": value for k, state in enumerate(self.states) for name, value in state.items()}
        return {**named, "conditions": self.condition_KD}

    def to_bytes(self) -> bytes:
        meta = {"setup_s": self.setup_s, "setup_evaluations": self.setup_evaluations}
        return pack({name: value.cpu().numpy() for name, value in self.arrays().items()}, meta)

    def latents(self, problem: Problem) -> Tensor:
        """(N, D) of the prior: adaptation moves the generator, not the latent."""
        return problem.generator.latent.prior(problem.streams)

    def decode(self, z_ND: Tensor, problem: Problem) -> Tensor:
        """Images (N, 3, H, W), each by the generator of its condition.

        Every sample is decoded by itself: which others share its condition must not show in its last bits.
        """
        rows = self.rows(problem.condition_ND)
        images: list[Tensor] = [torch.empty(0)] * len(z_ND)
        for k in rows.unique().tolist():
            own = own_state(self.adapted)
            with torch.no_grad():
                for name, value in self.states[k].items():
                    own[name].copy_(value)
            for i in (rows == k).nonzero()[:, 0].tolist():
                part = slice(i, i + 1)
                images[i] = decode_in(self.adapted, z_ND[part], context_rows(problem.context, part))[0]
        return torch.stack(images)
