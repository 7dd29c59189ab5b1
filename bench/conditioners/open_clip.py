"""Text conditions through a public CLIP of open_clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bench.auxiliaries.clip_files import ClipFiles
from bench.auxiliaries.open_clip import load_open_clip
from bench.conditioners.augment import Augmentation
from bench.conditioners.clip import ClipConditioner
from bench.errors import SuiteError
from bench.types import ConditionKind


@dataclass(frozen=True, kw_only=True)
class OpenClipText(ClipFiles):
    """AugCLIP with any model of open_clip, from a local file.

    Energy as for 'clip': minus the mean cosine over ``views`` augmented copies (0: the plain image), each
    resized to the model's size by bilinear interpolation without antialiasing, as TR0N and FuseDream do.
    """

    views: int = 50
    augmentations: tuple[Augmentation, ...] = ("color", "translation", "resize", "cutout")
    embeds_pictures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views < 0:
            raise SuiteError(f"views must be 0 (plain image) or more, got {self.views}.")

    @property
    def kind(self) -> ConditionKind:
        return "text"

    def load(self, device: torch.device) -> ClipConditioner:
        return ClipConditioner(self, load_open_clip(self, device), device)
