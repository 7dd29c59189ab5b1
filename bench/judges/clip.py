"""A CLIP as judge: image and text embeddings of unit norm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.auxiliaries.pictures import prepare
from bench.judges.base import Judge
from bench.judges.tiles import in_tiles
from bench.types import Condition, Readout
from bench.zoo.weights import file_sha256, load_model, model_sha256


@dataclass(frozen=True, kw_only=True)
class ClipJudge:
    """Scores text and image agreement with a zoo CLIP that must not be the guide.

    ``weights`` replaces the shipped file, then ``sha256`` may state the expected hash.
    """

    model: str = "shapes-clip-judge"
    weights: str | None = None
    sha256: str | None = None
    batch_size: int = 128

    gives: ClassVar[tuple[str, ...]] = (
        "features", "image_embedding", "text_embedding", "reference_embedding",
    )  # fmt: skip

    def load(self, device: torch.device) -> Judge:
        return self.reader(device)

    def reader(self, device: torch.device) -> ClipReader:
        network = load_model(self.model, device, path=self.weights, sha256=self.sha256)
        sha256 = file_sha256(Path(self.weights)) if self.weights else model_sha256(self.model)
        about = {"model": self.model, "weights_sha256": sha256}
        return ClipReader(network, device, self.batch_size, about)


class ClipReader:
    """Image embeddings also serve as features. Prompts too long for the context are cut before the end
    token, which stays."""

    def __init__(
        self,
        network: Any,
        device: torch.device,
        batch_size: int,
        about: Mapping[str, Any] | None = None,
        prompt_prefix: str = "",
    ):
        self.network, self.device, self.batch_size = network, device, batch_size
        self.about, self.prompt_prefix = dict(about or {}), prompt_prefix

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        def read(batch: Tensor) -> dict[str, Tensor]:
            raw = self.network.encode_image(self.prepare(batch))
            return {"features": raw, "embedding": F.normalize(raw.float(), dim=1)}

        out = in_tiles(images_NCHW, self.batch_size, self.device, read)
        texts = None
        if conditions and all(condition.text and condition.kind == "text" for condition in conditions):
            texts = self.texts([self.prompt_prefix + (condition.text or "") for condition in conditions])
        return Readout(
            features=out["features"],
            image_embedding=out["embedding"],
            text_embedding=texts,
            about=self.about,
            reference_embedding=self._references(conditions or (), read),
        )

    def _references(
        self, conditions: Sequence[Condition], read: Callable[[Tensor], dict[str, Tensor]]
    ) -> np.ndarray | None:
        """Unit-norm embeddings (N, E) of the pictures that image conditions show, each embedded once."""
        shown = {condition.id: condition.picture for condition in conditions if condition.picture is not None}
        if not conditions or any(condition.id not in shown for condition in conditions):
            return None
        parts = []
        names = list(shown)
        for start in range(0, len(names), self.batch_size):
            batch = np.stack([shown[name]() for name in names[start : start + self.batch_size]])
            parts.append(in_tiles(batch, self.batch_size, self.device, read)["embedding"])
        row = {name: i for i, name in enumerate(names)}
        return np.concatenate(parts)[[row[condition.id] for condition in conditions]]

    def prepare(self, images_NCHW: Tensor) -> Tensor:
        """uint8 images → what ``encode_image`` takes, float32 (N, 3, image_size, image_size)."""
        net = self.network
        return prepare(images_NCHW, net.image_size, net.image_mean, net.image_std)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-norm text embeddings (N, E); equal texts are encoded once, in batches of one fixed size."""
        unique = list(dict.fromkeys(texts))
        parts = []
        with torch.no_grad():
            for start in range(0, len(unique), self.batch_size):
                batch = unique[start : start + self.batch_size]
                padded = batch + [batch[-1]] * (self.batch_size - len(batch))
                raw = self.network.encode_text(self.network.tokenizer(padded).to(self.device))
                parts.append(F.normalize(raw.float(), dim=1)[: len(batch)].cpu().numpy())
        row = {text: i for i, text in enumerate(unique)}
        return np.concatenate(parts)[[row[text] for text in texts]]
