"""The translator's configuration: pairs, network, loss, optimiser. Defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.captioners.attributes import AttributeCaptioner
from bench.captioners.transformers import TransformersCaptioner
from bench.errors import SuiteError

if TYPE_CHECKING:
    from bench.translator.base import Ground, Progress
    from bench.translator.pairs import Pairs
    from bench.translator.train import Translator


@dataclass(frozen=True, kw_only=True)
class Tr0nTranslator:
    """TR0N's translator network, trained on synthetic pairs (z, c).

    ``route`` says how c is made from G(z): ``encode`` (CLIP image embedding or class probabilities) or
    ``caption`` (a caption of G(z) by ``captioner``, then its text embedding): a folder of BLIP or BLIP-2,
    or the shapes world's own. ``pair_batch`` images are drawn, captioned and encoded at once. ``noise`` is
    the deviation of the Gaussian noise added to c at training (pseudo-text; 0.2 or 0.5 in the paper's
    recipes). ``hidden`` null means 4 D. ``initial_std`` is where the learned deviation of the components
    starts (0.01 in the repository, which takes hundreds of thousands of steps to leave). ``steps`` of
    ``batch_size`` pairs run through the ``num_pairs`` in seeded order. ``held_out`` lists combinations of the
    shapes world's attributes ("shape=star,color=red"): pairs whose image shows one, as the captioner's
    classifier reads it, are left out, so that compositions can be judged that training never showed.
    """

    route: Literal["encode", "caption"] = "encode"
    captioner: AttributeCaptioner | TransformersCaptioner = field(default_factory=AttributeCaptioner)
    pair_batch: int = 256
    num_pairs: int = 1_000_000
    noise: float = 0.0
    components: int = 10
    hidden: int | None = None
    initial_std: float = 0.01
    steps: int = 625_000
    batch_size: int = 16
    learning_rate: float = 1e-4
    likelihood_weight: float = 1e-4
    clip_norm: float = 1.0
    held_out: tuple[str, ...] = ()
    seed: int = 24
    later_fields: ClassVar[tuple[str, ...]] = ("pair_batch", "held_out")

    def __post_init__(self) -> None:
        for name in ("num_pairs", "pair_batch", "components", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SuiteError(f"translator: {name} must be at least 1, got {getattr(self, name)}.")
        for name in ("learning_rate", "likelihood_weight", "clip_norm", "initial_std"):
            if getattr(self, name) <= 0:
                raise SuiteError(f"translator: {name} must be positive, got {getattr(self, name)}.")
        if self.held_out and not isinstance(self.captioner, AttributeCaptioner):
            raise SuiteError("translator: held_out needs the shapes world's captioner to read attributes.")
        if any("=" not in part for text in self.held_out for part in text.split(",")):
            raise SuiteError("translator: held_out takes combinations such as shape=star,color=red.")
        if self.noise < 0:
            raise SuiteError(f"translator: noise must not be negative, got {self.noise}.")

    def train(self, ground: Ground, pairs: Pairs, progress: Progress | None = None) -> Translator:
        """The translator trained on ``pairs``."""
        from bench.translator.train import train_translator

        return train_translator(pairs, ground.generator.latent, self, ground.device, progress)

    def read(self, content: bytes, ground: Ground) -> Translator:
        """The translator that was stored. Raises WeightError if it does not fit."""
        from bench.translator.train import read_translator

        return read_translator(content, ground.generator.latent, ground.conditioner.dim, self, ground.device)
