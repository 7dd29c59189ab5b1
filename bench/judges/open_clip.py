"""A public CLIP of open_clip as judge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.auxiliaries.clip_files import ClipFiles
from bench.auxiliaries.open_clip import load_open_clip
from bench.judges.clip import ClipReader


@dataclass(frozen=True, kw_only=True)
class OpenClipJudge(ClipFiles):
    """Scores text and image agreement with any model of open_clip, from a local file.

    Images go through open_clip's own transform (Pillow resize, crop, normalisation), so that embeddings are
    those of open_clip itself.
    """

    batch_size: int = 64

    def load(self, device: torch.device) -> OpenClipReader:
        return OpenClipReader(load_open_clip(self, device), device, self.batch_size)


class OpenClipReader(ClipReader):
    """The reader of a public CLIP; features are its raw image embeddings."""

    def prepare(self, images_NCHW: Tensor) -> Tensor:
        return self.network.prepare(images_NCHW.cpu().numpy()).to(self.device)
