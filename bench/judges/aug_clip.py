"""A CLIP that also looks at augmented views of each image: the judge of AugCLIP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.conditioners.augment import Augmentation, augment
from bench.judges.base import Judge
from bench.judges.clip import ClipJudge, ClipReader
from bench.judges.open_clip import OpenClipJudge
from bench.judges.tiles import in_tiles, to_unit
from bench.streams import Streams, hash64
from bench.types import Condition, Readout

POLICY: tuple[Augmentation, ...] = ("color", "translation", "resize", "cutout")


@dataclass(frozen=True, kw_only=True)
class AugClipJudge(ClipJudge):
    """A zoo CLIP on the image and on ``views`` augmented copies of it, for AugCLIP.

    An image's augmentations are drawn from its own content and ``seed``, so that they depend on nothing else.
    Source: Liu et al. 2021, arXiv:2112.01573.
    """

    views: Annotated[int, Field(ge=1)] = 50
    seed: Annotated[int, Field(ge=0)] = 0
    augmentations: tuple[Augmentation, ...] = POLICY

    gives: ClassVar[tuple[str, ...]] = (
        "features", "image_embedding", "text_embedding", "view_embedding", "reference_embedding",
    )  # fmt: skip

    def load(self, device: torch.device) -> Judge:
        return ViewsReader(self.reader(device), self)


@dataclass(frozen=True, kw_only=True)
class AugOpenClipJudge(OpenClipJudge):
    """Any CLIP of open_clip on the image and on ``views`` augmented copies of it, for AugCLIP.

    Views are resized as those that guide: bilinear, not antialiased, in floats; the plain image by
    open_clip's own transform. An image's augmentations are drawn from its own content and ``seed``. Source:
    Liu et al. 2021, arXiv:2112.01573.
    """

    views: Annotated[int, Field(ge=1)] = 50
    seed: Annotated[int, Field(ge=0)] = 0
    augmentations: tuple[Augmentation, ...] = POLICY

    gives: ClassVar[tuple[str, ...]] = (
        "features", "image_embedding", "text_embedding", "view_embedding", "reference_embedding",
    )  # fmt: skip

    def load(self, device: torch.device) -> Judge:
        return ViewsReader(self.reader(device), self)


class ViewsReader:
    """What ``reader`` sees, and the mean unit embedding of each image's views."""

    def __init__(self, reader: ClipReader, config: AugClipJudge | AugOpenClipJudge):
        self.reader, self.config = reader, config

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        plain = self.reader.readout(images_NCHW, conditions)
        num = max(1, self.config.batch_size // self.config.views)
        views = in_tiles(images_NCHW, num, self.reader.device, self._views)["views"]
        about = {"views": self.config.views, "augmentations": list(self.config.augmentations)}
        return replace(plain, view_embedding=views, about={**plain.about, **about})

    def _views(self, batch: Tensor) -> dict[str, Tensor]:
        config, network = self.config, self.reader.network
        keys = [
            hash64("aug-clip", config.seed, hashlib.blake2b(image.tobytes()).hexdigest())
            for image in batch.cpu().numpy()
        ]
        streams = Streams(torch.tensor(keys, dtype=torch.int64), batch.device)
        x = (augment(to_unit(batch), streams, 0, config.views, config.augmentations) + 1) / 2
        size = network.image_size
        if x.shape[-1] != size:
            x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False)
        mean, std = (
            torch.tensor(each, device=x.device)[:, None, None]
            for each in (network.image_mean, network.image_std)
        )
        raw = network.encode_image((x - mean) / std).float()
        return {"views": F.normalize(raw, dim=1).view(len(batch), config.views, -1).mean(1)}
