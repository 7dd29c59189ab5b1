"""What is trained before sampling: the contract of the suite's ``translators``.

A configuration offers ``num_pairs`` (synthetic pairs that it is trained on, 0 for none), ``steps``,
``batch_size``, ``seed``, and ``train(ground, pairs, progress)`` and ``read(content, ground)``, both of which
give a :class:`Trained`. Optional: ``per_condition``, True where it is trained for the very conditions that
will be asked for, which are then part of its content key; ``kinds``, the kinds of condition that it takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.conditioners.base import Conditioner
from bench.errors import SamplingError, WeightError
from bench.generators.base import AnyGenerator, context_of
from bench.payload import pack, unpack
from bench.samplers.base import Problem
from bench.streams import Streams, hash64
from bench.types import Condition

Progress = Callable[[int, int], None]


def distinct(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """Each condition once, in order of its id: what a set-up per condition is trained for."""
    found = {condition.id: condition for condition in conditions}
    return tuple(found[name] for name in sorted(found))


@dataclass
class Ground:
    """What a set-up is trained on: frozen G and f, and the ``conditions`` (K) to come, each once.

    ``conditions`` are those of the cell; a configuration without ``per_condition`` must not look at them.
    ``evaluations`` counts single samples through G and views through f, as a sampler's do.
    """

    generator: AnyGenerator
    conditioner: Conditioner
    device: torch.device
    conditions: tuple[Condition, ...] = ()
    evaluations: Counter = field(default_factory=Counter)

    def embedded(self) -> Tensor:
        """(K, D) conditions as the energy reads them."""
        with torch.no_grad():
            return self.conditioner.embed(self.conditions)

    def problem(
        self, streams: Streams, condition_ND: Tensor, conditions: Sequence[Condition] | None = None
    ) -> Problem:
        """A problem of as many samples as streams, whose evaluations are counted here."""
        return Problem(
            self.generator,
            self.conditioner,
            condition_ND,
            streams,
            evaluations=self.evaluations,
            context=context_of(self.generator, conditions, streams),
        )

    def streams(self, num: int, *parts: object) -> Streams:
        """Streams 0 … num - 1 named by ``parts``, on this device."""
        return Streams.from_seed(num, *parts, device=self.device)


class Trained:
    """A set-up's result: a module, with what it took.

    ``setup_s`` holds seconds by what they went into, ``setup_evaluations`` single samples through G and
    views through f; both are kept with the stored weights.
    """

    def __init__(self, network: nn.Module, device: torch.device):
        self.network = network.to(device).eval().requires_grad_(False)
        self.setup_s: dict[str, float] = {}
        self.setup_evaluations: dict[str, int] = {}

    def arrays(self) -> dict[str, Tensor]:
        """What is stored, by name."""
        return dict(self.network.state_dict())

    def to_bytes(self) -> bytes:
        """The weights as safetensors, with what they took beside them."""
        meta = {"setup_s": self.setup_s} | (
            {"setup_evaluations": self.setup_evaluations} if self.setup_evaluations else {}
        )
        return pack({key: value.cpu().numpy() for key, value in self.arrays().items()}, meta)

    def took(self, meta: Mapping[str, Any]) -> None:
        """Takes over what is stored beside the weights."""
        self.setup_s = dict(meta["setup_s"])
        self.setup_evaluations = dict(meta.get("setup_evaluations", {}))


def load_state(network: nn.Module, content: bytes) -> dict[str, Any]:
    """Loads what :meth:`Trained.to_bytes` gave into a network of the same shape; its metadata.

    Raises WeightError if it does not fit.
    """
    arrays, meta = unpack(content)
    try:
        network.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    except RuntimeError as error:
        raise WeightError(
            f"a stored translator does not fit: {error}. Remove it from the artifact store to train anew."
        ) from error
    return meta


class ConditionRows:
    """Finds, for rows of embedded conditions, which of the K trained ones each is."""

    def __init__(self, condition_KD: Tensor):
        self.condition_KD = condition_KD

    def __call__(self, condition_ND: Tensor) -> Tensor:
        """Int64 (N,) in [0, K). Raises SamplingError for a condition that was not trained for."""
        # Squared distances by differences: expanding the square loses the digits that tell equals apart.
        apart = torch.stack([(condition_ND - row).square().sum(1) for row in self.condition_KD], dim=1)
        nearest, index = apart.min(1)
        if bool((nearest > 1e-4 * (1 + condition_ND.square().sum(1))).any()):
            raise SamplingError(
                "a condition was asked for that this set-up was not trained for. Remove it from the artifact "
                "store to train anew."
            )
        return index


def seeded(*parts: object) -> torch.Generator:
    """A torch generator on the CPU for initial weights."""
    return torch.Generator().manual_seed(hash64(*parts) % 2**62)
