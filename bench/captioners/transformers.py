"""BLIP and BLIP-2 from a local folder in transformers' layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.assets.missing import Published
from bench.auxiliaries.hub_folder import load_pretrained, need_transformers
from bench.auxiliaries.pictures import normalise
from bench.errors import SuiteError, WeightError
from bench.streams import Streams

MODELS = {"blip": "BlipForConditionalGeneration", "blip-2": "Blip2ForConditionalGeneration"}


@dataclass(frozen=True, kw_only=True)
class TransformersCaptioner:
    """BLIP or BLIP-2 through transformers, from a local ``folder`` (Salesforce/blip-image-captioning-*, …).

    ``decoding`` "nucleus" samples from the ``top_p`` likeliest with ``repetition_penalty``, "beam" searches
    with ``beams`` and no penalty. Lengths count tokens with the prompt's, as BLIP's own code does. The
    prompt is taken off the caption. ``size`` null shows images as they were generated (position embeddings
    are interpolated), else they are resized bilinearly. Defaults are TR0N's for BLIP; for BLIP-2 the paper's
    decoding is not published, and its image size is 224. ``dtype`` is the network's.
    """

    folder: str
    decoding: Literal["nucleus", "beam"] = "nucleus"
    prompt: str = "a picture of "
    min_length: int = 5
    max_length: int = 20
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    beams: int = 3
    size: int | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise SuiteError(f"captioner: top_p must be in (0, 1], got {self.top_p}.")
        if not 1 <= self.min_length <= self.max_length:
            raise SuiteError(
                f"captioner: min_length must be in 1 … max_length ({self.max_length}), got {self.min_length}."
            )
        if self.beams < 1 or self.repetition_penalty <= 0:
            raise SuiteError("captioner: beams must be at least 1 and repetition_penalty positive.")

    @property
    def assets(self) -> dict[str, Published | None]:
        """The folder, with what is known of the public one."""
        return {
            "folder": Published(
                what="captioner in transformers' layout (config.json, weights, tokenizer, preprocessor)",
                source="https://huggingface.co/Salesforce/blip-image-captioning-base, or of another BLIP",
                size="about 1 GB for BLIP base, 15 GB for BLIP-2 with OPT-2.7B",
            )
        }

    def load(self, device: torch.device) -> BlipReader:
        """Raises WeightError where the folder is missing or does not hold a whole BLIP or BLIP-2."""
        transformers = need_transformers("captioner")
        folder = Path(self.folder)
        published = self.assets["folder"]
        model, config = load_pretrained(folder, MODELS, published, field="folder", dtype=self.dtype)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
            mean, std = preprocessor["image_mean"], preprocessor["image_std"]
        except (OSError, ValueError, KeyError) as error:
            raise WeightError(
                f"captioner folder '{folder}': tokenizer or preprocessor_config.json cannot be read: "
                f"{error}. Fetch the whole folder."
            ) from error
        return BlipReader(self, model.to(device), config, tokenizer, mean, std)


class BlipReader:
    """Captions of images in [-1, 1]; a caption depends on its image and its sample's stream alone."""

    def __init__(
        self, how: TransformersCaptioner, model: Any, config: Any, tokenizer: Any, mean: Any, std: Any
    ):
        self.how, self.model, self.config, self.tokenizer = how, model, config, tokenizer
        self.mean, self.std = tuple(mean), tuple(std)
        self.two = config.model_type == "blip-2"

    def captions(self, images_NCHW: Tensor, streams: Streams) -> list[str]:
        device, how = images_NCHW.device, self.how
        pixels = self._pixels(images_NCHW)
        ids, length = self._prompt(len(images_NCHW), device)
        lengths = {
            "min_new_tokens": max(0, how.min_length - length),
            "max_new_tokens": max(1, how.max_length - length),
        }
        if how.decoding == "beam":
            decoding: dict[str, Any] = {"num_beams": how.beams, "do_sample": False}
        else:
            picks = _Nucleus(how.top_p, streams, start=ids.shape[1] - (0 if self.two else 1))
            decoding = {
                "num_beams": 1, "do_sample": False, "logits_processor": [picks],
                "repetition_penalty": how.repetition_penalty,
            }  # fmt: skip
        with torch.no_grad():
            found = self.model.generate(
                pixel_values=pixels,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                interpolate_pos_encoding=pixels.shape[-1] != self.config.vision_config.image_size,
                **lengths,
                **decoding,
            )
        if self.two and found.shape[1] >= ids.shape[1] and torch.equal(found[:, : ids.shape[1]], ids):
            found = found[:, ids.shape[1] :]
        texts = self.tokenizer.batch_decode(found, skip_special_tokens=True)
        return [self._stripped(text) for text in texts]

    def _pixels(self, images_NCHW: Tensor) -> Tensor:
        x = (images_NCHW + 1) / 2
        if self.how.size is not None and x.shape[-1] != self.how.size:
            side = (self.how.size, self.how.size)
            x = F.interpolate(x, side, mode="bilinear", align_corners=False)
        return normalise(x, self.mean, self.std).to(self.model.dtype)

    def _prompt(self, num: int, device: torch.device) -> tuple[Tensor, int]:
        """The prompt's token ids, int64 (num, L), as the model takes them, and how many of them are text."""
        ids = list(self.tokenizer(self.how.prompt.strip()).input_ids)
        length = len(ids)
        if self.two:
            ids = [self.config.image_token_index] * self.config.num_query_tokens + ids
        else:
            length -= 1  # BLIP drops the end token of the prompt
        return torch.tensor([ids] * num, dtype=torch.int64, device=device), length

    def _stripped(self, text: str) -> str:
        """The caption without its prompt; where nothing is left, the prompt."""
        text, prompt = text.strip(), self.how.prompt.strip()
        return text.removeprefix(prompt).strip() or prompt


class _Nucleus:
    """A logits processor that leaves one token per sample: drawn from the nucleus by the sample's own stream.

    Greedy search then takes it, so that transformers' batch-wide random numbers are never asked.
    """

    def __init__(self, top_p: float, streams: Streams, start: int):
        from transformers import TopPLogitsWarper

        self.nucleus, self.streams, self.start = TopPLogitsWarper(top_p), streams, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.start
        probabilities = self.nucleus(input_ids, scores).double().softmax(1)
        cumulative = probabilities.cumsum(1)
        draw = self.streams.uniform("caption", (1,), step).double() * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, draw, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)
