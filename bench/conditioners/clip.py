"""Text conditions: the (augmented) cosine of a frozen CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.auxiliaries.pictures import prepare
from bench.conditioners.augment import Augmentation, augment
from bench.errors import DataError, SuiteError
from bench.streams import Streams
from bench.types import Condition, ConditionKind
from bench.zoo.weights import load_model


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Energy E = -mean over augmented views of cos(f(view), c) (AugCLIP; FuseDream, arXiv:2112.01573).

    ``views`` is A, 50 in the paper; 0 means the plain image, unaugmented. The condition vector is the raw
    (not normalised) text embedding, which the translator reads as it is.
    """

    model: str = "shapes-clip-guide"
    views: int = 50
    augmentations: tuple[Augmentation, ...] = ("color", "translation", "resize", "cutout")
    weights: str | None = None
    sha256: str | None = None
    embeds_pictures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.views < 0:
            raise SuiteError(f"clip: views must be 0 (plain image) or more, got {self.views}.")

    @property
    def kind(self) -> ConditionKind:
        return "text"

    def load(self, device: torch.device) -> ClipConditioner:
        network = load_model(self.model, device, path=self.weights, sha256=self.sha256)
        return ClipConditioner(self, network, device)


class ClipConditioner:
    """f of a CLIP. ``dim`` is the embedding's size."""

    def __init__(self, config: Any, network: Any, device: torch.device):
        self.config, self.network, self.device = config, network, device
        self.dim = network.embed_dim
        self.views = max(1, config.views)
        self.mean = torch.tensor(network.image_mean, device=device)[:, None, None]
        self.std = torch.tensor(network.image_std, device=device)[:, None, None]

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        texts = []
        for condition in conditions:
            if not condition.text or not condition.text.strip():
                raise DataError(f"condition '{condition.id}' has no text, which a CLIP conditioner needs.")
            texts.append(condition.text)
        return self.embed_texts(texts)

    @property
    def notes(self) -> dict[str, Any]:
        return getattr(self.network, "notes", {})

    def truncated(self, conditions: Sequence[Condition]) -> list[bool]:
        """Which conditions' texts do not fit the context, and are cut before the end token."""
        return self.network.tokenizer.truncated([condition.text or "" for condition in conditions])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Raw text embeddings (N, dim). Equal texts are encoded once, in batches of a fixed size."""
        unique = list(dict.fromkeys(texts))
        size = 256
        parts = []
        with torch.no_grad():
            for start in range(0, len(unique), size):
                batch = unique[start : start + size]
                padded = batch + [batch[-1]] * (min(size, 1 << (len(batch) - 1).bit_length()) - len(batch))
                tokens = self.network.tokenizer(padded).to(self.device)
                parts.append(self.network.encode_text(tokens)[: len(batch)].float())
        table = torch.cat(parts)
        row = {text: i for i, text in enumerate(unique)}
        return table[torch.tensor([row[text] for text in texts], device=self.device)]

    def embed_pictures(self, images_NCHW: np.ndarray) -> Tensor:
        """Raw embeddings (N, dim) of uint8 pictures (N, 3, H, W), prepared as the CLIP was trained."""
        net, parts = self.network, []
        with torch.no_grad():
            for start in range(0, len(images_NCHW), 64):
                batch = images_NCHW[start : start + 64]
                if hasattr(net, "prepare"):
                    x = net.prepare(batch).to(self.device)
                else:
                    x = prepare(
                        torch.from_numpy(batch).to(self.device), net.image_size, net.image_mean, net.image_std
                    )
                parts.append(net.encode_image(x).float())
        return torch.cat(parts)

    def _features(self, images_NCHW: Tensor) -> Tensor:
        x = (images_NCHW + 1) / 2
        size = self.network.image_size
        if x.shape[-1] != size:
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
        return self.network.encode_image((x - self.mean) / self.std).float()

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return self._features(images_NCHW)

    def plain_energy(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        """Minus the cosine of the image as it is, (N,)."""
        return -F.cosine_similarity(self._features(images_NCHW), condition_ND, dim=1)

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        if self.config.views == 0:
            return self.plain_energy(images_NCHW, condition_ND)
        views = augment(images_NCHW, streams, step, self.views, self.config.augmentations)
        cosine = F.cosine_similarity(
            self._features(views), condition_ND.repeat_interleave(self.views, dim=0), dim=1
        )
        return -cosine.view(-1, self.views).mean(1)
