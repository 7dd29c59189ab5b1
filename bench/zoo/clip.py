"""The zoo's CLIP models: open_clip's own CLIP class and tokenizer with small configurations."""

from __future__ import annotations

import gzip
import itertools
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.torchvision_guard import ensure_torchvision

CONTEXT_LENGTH = 40
VOCABULARY = "shapes-bpe.txt.gz"

# Shapes images are already near zero mean and unit range after x / 0.5 - 1; kept explicit as open_clip does.
IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.5, 0.5, 0.5)

CONFIGS: dict[str, dict[str, Any]] = {
    "resnet": {
        "embed_dim": 96,
        "vision_cfg": {
            "image_size": 32,
            "layers": (1, 1, 1, 1),
            "width": 16,
            "head_width": 64,
            "patch_size": None,
        },
        "text_cfg": {"context_length": CONTEXT_LENGTH, "width": 96, "heads": 3, "layers": 2},
    },
    "deep-resnet": {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": 32,
            "layers": (1, 2, 2, 1),
            "width": 20,
            "head_width": 64,
            "patch_size": None,
        },
        "text_cfg": {"context_length": CONTEXT_LENGTH, "width": 64, "heads": 4, "layers": 3},
    },
}


def train_vocabulary(texts: Iterable[str], path: Path, max_merges: int = 600) -> int:
    """Number of byte-pair merges learned from the texts and written in open_clip's vocabulary format.

    Source: Sennrich et al. 2016, arXiv:1508.07909. Ties are broken by the pair itself, so the file is
    reproducible.
    """
    ensure_torchvision()
    import regex
    from open_clip.tokenizer import bytes_to_unicode

    table = bytes_to_unicode()
    pattern = regex.compile(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        for word in pattern.findall(text.lower()):
            symbols = [table[byte] for byte in word.encode()]
            counts[(*symbols[:-1], symbols[-1] + "</w>")] += 1
    merges: list[tuple[str, str]] = []
    words = dict(counts)
    while len(merges) < max_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        words = {_merge(word, best): count for word, count in words.items()}
    body = "\n".join(["#version: tr0n-bench shapes 1", *(" ".join(pair) for pair in merges)])
    path.write_bytes(gzip.compress(body.encode(), mtime=0))
    return len(merges)


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


class Tokenizer:
    """Text to token ids, int64 (N, 40), by open_clip's own tokenizer over the zoo's vocabulary.

    A text that is too long is cut and keeps the end token, as open_clip does. ``truncated`` tells which.
    """

    def __init__(self, vocabulary: Path):
        ensure_torchvision()
        from open_clip.tokenizer import SimpleTokenizer

        self.inner = SimpleTokenizer(bpe_path=str(vocabulary), context_length=CONTEXT_LENGTH)
        self.vocab_size = self.inner.vocab_size
        # of cells that share prompts each asks for the same texts
        self._length = lru_cache(maxsize=2**16)(lambda text: len(self.inner.encode(text)))

    def __call__(self, texts: list[str]) -> Tensor:
        return self.inner(texts)

    def truncated(self, texts: list[str]) -> list[bool]:
        return [self._length(text) > CONTEXT_LENGTH - 2 for text in texts]


class ZooClip(nn.Module):
    """An open_clip CLIP with its tokenizer and preprocessing constants.

    ``encode_image`` takes images already normalised by ``image_mean`` and ``image_std``; embeddings are
    not normalised, as in open_clip.
    """

    def __init__(self, architecture: str, vocabulary: Path):
        super().__init__()
        ensure_torchvision()
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

        self.tokenizer = Tokenizer(vocabulary)
        config = CONFIGS[architecture]
        text = CLIPTextCfg(**config["text_cfg"], vocab_size=self.tokenizer.vocab_size)
        vision = CLIPVisionCfg(**config["vision_cfg"])
        self.clip = CLIP(embed_dim=config["embed_dim"], vision_cfg=vision, text_cfg=text)
        self.config = {"architecture": architecture}
        self.embed_dim: int = config["embed_dim"]
        self.image_size: int = config["vision_cfg"]["image_size"]
        self.image_mean, self.image_std = IMAGE_MEAN, IMAGE_STD

    def encode_image(self, images_NCHW: Tensor) -> Tensor:
        return self.clip.encode_image(images_NCHW)

    def encode_text(self, tokens_NL: Tensor) -> Tensor:
        return self.clip.encode_text(tokens_NL)

    def forward(self, images_NCHW: Tensor, tokens_NL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.encode_image(images_NCHW), self.encode_text(tokens_NL), self.clip.logit_scale.exp()


def embed_texts(model: ZooClip, texts: list[str], batch_size: int = 256) -> Tensor:
    """Raw text embeddings (N, E) of any number of texts, on the model's device, without gradients."""
    device = next(model.parameters()).device
    with torch.no_grad():
        parts = [
            model.encode_text(model.tokenizer(texts[i : i + batch_size]).to(device))
            for i in range(0, len(texts), batch_size)
        ]
    return torch.cat(parts)
