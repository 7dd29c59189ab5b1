"""A public CLIP of open_clip as judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from bench.auxiliaries.clip_files import ClipFiles
from bench.auxiliaries.open_clip import load_open_clip
from bench.judges.base import Judge
from bench.judges.clip import ClipReader
from bench.zoo.weights import file_sha256


@dataclass(frozen=True, kw_only=True)
class OpenClipJudge(ClipFiles):
    """Scores text and image agreement with any model of open_clip, from a local file.

    Images go through open_clip's own transform (Pillow resize, crop, normalisation), so that embeddings are
    those of open_clip itself. ``prompt_prefix`` is put before every prompt, such as CLIPScore's "A photo
    depicts ".
    """

    batch_size: int = 64
    prompt_prefix: str = ""

    later_fields: ClassVar[tuple[str, ...]] = ("prompt_prefix",)
    gives: ClassVar[tuple[str, ...]] = (
        "features", "image_embedding", "text_embedding", "reference_embedding",
    )  # fmt: skip

    def load(self, device: torch.device) -> Judge:
        return self.reader(device)

    def reader(self, device: torch.device) -> OpenClipReader:
        network = load_open_clip(self, device)
        about = {
            "model": self.model if self.config is None else "open_clip_config.json",
            "pretrained": self.pretrained,
            "weights_sha256": file_sha256(Path(self.weights)),
            "prompt_prefix": self.prompt_prefix,
            "context_length": network.tokenizer.context_length,
        }
        return OpenClipReader(network, device, self.batch_size, about, self.prompt_prefix)


class OpenClipReader(ClipReader):
    """The reader of a public CLIP; features are its raw image embeddings."""

    def prepare(self, images_NCHW: Tensor) -> Tensor:
        return self.network.prepare(images_NCHW.cpu().numpy()).to(self.device)
