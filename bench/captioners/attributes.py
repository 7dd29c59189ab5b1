"""A captioner for the shapes world: a classifier reads the attributes, the world's grammar words them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.streams import Streams
from bench.zoo.weights import load_model


@dataclass(frozen=True, kw_only=True)
class AttributeCaptioner:
    """Captions a generated image: a classifier reads its attributes, the world's grammar words them.

    ``model`` names a zoo classifier that knows every attribute of the shapes world.
    """

    model: str = "shapes-classifier-guide"
    weights: str | None = None
    sha256: str | None = None

    def load(self, device: torch.device) -> AttributeReader:
        from bench.worlds import shapes

        classifier = load_model(self.model, device, path=self.weights, sha256=self.sha256)
        expected = shapes.attribute_values(1)
        if dict(classifier.heads) != expected:
            raise SuiteError(
                f"captioner: classifier '{self.model}' reads {', '.join(classifier.heads)}; the shapes "
                f"grammar needs {', '.join(expected)}."
            )
        return AttributeReader(classifier)


class AttributeReader:
    """Captions by a classifier of the shapes world; the wording is drawn from the sample's stream."""

    def __init__(self, classifier: Any):
        self.classifier = classifier

    def shows(self, images_NCHW: Tensor, combinations: Sequence[str]) -> Tensor:
        """Bool (N,): whether an image shows one of the combinations ("shape=star,color=red").

        Raises SuiteError for an attribute or value that the world does not have.
        """
        from bench.worlds import shapes

        values, logits = shapes.attribute_values(1), self.classifier(images_NCHW)
        found = torch.zeros(len(images_NCHW), dtype=torch.bool, device=images_NCHW.device)
        for text in combinations:
            every = torch.ones_like(found)
            for part in text.split(","):
                name, _, value = (word.strip() for word in part.partition("="))
                if value not in values.get(name, ()):
                    raise SuiteError(
                        f"held_out: '{text}' is no combination of the shapes world's attributes."
                    )
                every &= logits[name].argmax(1) == values[name].index(value)
            found |= every
        return found

    def captions(self, images_NCHW: Tensor, streams: Streams) -> list[str]:
        from bench.worlds import shapes

        heads = shapes.attribute_values(1)
        picks = {head: logits.argmax(1).tolist() for head, logits in self.classifier(images_NCHW).items()}
        rows = [{head: heads[head][picks[head][i]] for head in heads} for i in range(len(images_NCHW))]
        which = streams.integers("pairs:wording", 5).tolist()
        return [five[k] for five, k in zip(shapes.captions(rows, streams), which)]
