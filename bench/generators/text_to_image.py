"""Text-to-image pipelines of diffusers as G(z; prompt): one-step models, and native baselines."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.assets.missing import Published
from bench.errors import SuiteError, WeightError
from bench.extras import optional
from bench.generators.base import Block, Context, LatentSpace
from bench.generators.diffusers_files import LIBRARIES, UNUSED, WHAT, load_part, quiet, read_index
from bench.streams import Streams
from bench.types import Condition

PUBLISHED = Published(
    what="a text-to-image pipeline in diffusers' layout",
    source="https://huggingface.co/stabilityai/sd-turbo, stabilityai/sdxl-turbo and others, the whole folder",
    size="about 3 to 14 GB in half precision",
)
_EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds")
_POOLED = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
# What encode_prompt gives, in order; the pipeline takes arguments of the same names. A pipeline that is not
# here encodes its prompts in every call.
ENCODED: Mapping[str, tuple[str, ...]] = {
    "StableDiffusionPipeline": _EMBEDDINGS,
    "LatentConsistencyModelPipeline": _EMBEDDINGS,
    "StableDiffusionXLPipeline": (*_EMBEDDINGS, *_POOLED),
}
VOCABULARIES = ("vocab.json", "tokenizer.json", "spiece.model", "tokenizer.model")
PROMPT_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class TextToImage:
    """A text-to-image pipeline: z is its initial noise, the prompt comes from the condition.

    ``weights`` is a pipeline's folder in diffusers' layout. ``steps`` and ``guidance`` are the pipeline's own
    (SD-Turbo and SDXL-Turbo: 1 and 0; no negative prompt unless guidance is above 1). With the sampler
    ``prior`` this is the native baseline: what a user would run instead. Schedulers that add noise draw it
    from a stream of each sample. A safety checker is not loaded: it would replace images by black ones.
    ``checkpointed`` computes activations again for the gradient, where the networks can.
    """

    weights: str
    resolution: int
    steps: int = 1
    guidance: float = 0.0
    negative_prompt: str = ""
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    checkpointed: bool = True

    needs_conditions = True
    kinds = ("text",)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SuiteError(f"steps must be at least 1, got {self.steps}.")
        if self.guidance < 0:
            raise SuiteError(f"guidance must not be negative, got {self.guidance}.")
        if self.negative_prompt and self.guidance <= 1:
            raise SuiteError("negative_prompt has no effect unless guidance is above 1.")

    @property
    def assets(self) -> Mapping[str, Published]:
        return {"weights": PUBLISHED}

    def load(self, device: torch.device) -> TextToImageGenerator:
        pipeline = load_pipeline(Path(self.weights), getattr(torch, self.precision))
        pipeline.to(device)
        if self.checkpointed:
            for part in pipeline.components.values():
                if getattr(part, "_supports_gradient_checkpointing", False):
                    part.enable_gradient_checkpointing()
        return TextToImageGenerator(self, pipeline, device)


def load_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """The pipeline of a folder, each of its networks checked key by key. Nothing is fetched.

    Raises WeightError naming the part that is missing or does not fit.
    """
    loaded: dict[str, Any] = {}
    for name, (library, class_name) in read_index(folder, PUBLISHED).items():
        if name in UNUSED:
            loaded[name] = None
            continue
        files = {path.name for path in (folder / name).glob("*")}
        if not files or (name.startswith("tokenizer") and not files & set(VOCABULARIES)):
            # transformers would go on with a tokenizer that knows no words
            lacks = f"has none of {', '.join(VOCABULARIES)}" if files else "is missing or empty"
            raise WeightError(f"'{folder / name}', which the pipeline needs, {lacks}. Fetch it anew.")
        if library in LIBRARIES and (folder / name / "config.json").is_file():
            loaded[name] = load_part(folder, name, library, class_name, dtype=dtype)
    try:
        with quiet():
            pipeline = optional("diffusers", WHAT).DiffusionPipeline.from_pretrained(
                str(folder), **loaded, dtype=dtype, local_files_only=True
            )
    except Exception as error:  # a tokenizer or scheduler that is missing or damaged
        raise WeightError(f"'{folder}' cannot be loaded: {' '.join(str(error).split())[:600]}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class TextToImageGenerator:
    """G(z; prompt); the latent has the shape of the pipeline's own initial noise, before its scaling."""

    def __init__(self, config: TextToImage, pipeline: Any, device: torch.device):
        self.config, self.pipeline, self.device = config, pipeline, device
        self.resolution = config.resolution
        # The public call is wrapped to record no gradients; what it wraps does not mind.
        self._call = inspect.unwrap(type(pipeline).__call__)
        self._encoded = ENCODED.get(type(pipeline).__name__, ())
        self.shape = self._noise_shape()
        dim = math.prod(self.shape)
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=dim),), sample=lambda streams: streams.normal("prior:z", (dim,))
        )
        self.notes = {
            "pipeline": type(pipeline).__name__,
            "scheduler": type(pipeline.scheduler).__name__,
            "safety checker": "not loaded",
        }

    def _noise_shape(self) -> tuple[int, ...]:
        network = getattr(self.pipeline, "unet", None) or getattr(self.pipeline, "transformer", None)
        prepare = getattr(self.pipeline, "prepare_latents", None)
        if network is None or prepare is None:
            raise WeightError(f"a {type(self.pipeline).__name__} draws no initial noise that could be given.")
        size, scale = self.config.resolution, getattr(self.pipeline, "vae_scale_factor", 8)
        if size % scale:
            raise SuiteError(f"resolution must be a multiple of {scale} for this pipeline, got {size}.")
        generator = torch.Generator().manual_seed(0)
        found = prepare(
            1, network.config.in_channels, size, size, torch.float32, torch.device("cpu"), generator
        )
        return tuple((found[0] if isinstance(found, tuple) else found).shape[1:])

    def context(self, conditions: Sequence[Condition] | None, streams: Streams) -> Context:
        """The prompts' embeddings (or the prompts as bytes); ``seed`` int64 (N,) of the scheduler's noise."""
        if conditions is None:
            raise SuiteError("a text-to-image model makes an image of a prompt, so it needs a condition.")
        prompts = [item.text or "" for item in conditions]
        found = {"seed": streams.integers("text-to-image:seed", 2**32)}
        if not self._encoded:
            return {**found, "prompt": _as_bytes(prompts).to(streams.device)}
        guided = self.config.guidance > 1
        arguments: dict[str, Any] = {"num_images_per_prompt": 1, "do_classifier_free_guidance": guided}
        if guided and self.config.negative_prompt:  # without one, XL takes zeros for the embedding of ""
            arguments["negative_prompt"] = [self.config.negative_prompt] * len(prompts)
        with torch.no_grad():
            values = self.pipeline.encode_prompt(prompt=prompts, device=self.device, **arguments)
        found |= {name: value for name, value in zip(self._encoded, values) if value is not None}
        return found

    def decode(self, z_ND: Tensor, context: Context) -> Tensor:
        prompts = {name: value for name, value in context.items() if name != "seed"}
        arguments: dict[str, Any] = dict(prompts)
        if "prompt" in prompts:
            arguments["prompt"] = _as_texts(prompts["prompt"])
            if self.config.negative_prompt:
                arguments["negative_prompt"] = [self.config.negative_prompt] * len(z_ND)
        # On the CPU, where a seed gives the same noise on every machine.
        generators = [torch.Generator().manual_seed(seed) for seed in context["seed"].tolist()]
        images = self._call(
            self.pipeline,
            **arguments,
            latents=z_ND.view(-1, *self.shape).to(self.pipeline.dtype),
            height=self.resolution,
            width=self.resolution,
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance,
            generator=generators,
            output_type="pt",
            return_dict=False,
        )[0]
        return 2 * images.float() - 1


def _as_bytes(prompts: Sequence[str]) -> Tensor:
    """UTF-8, uint8 (N, PROMPT_BYTES), zeros behind; what is longer is cut, far beyond text encoders' ends."""
    rows = torch.zeros(len(prompts), PROMPT_BYTES, dtype=torch.uint8)
    for row, prompt in zip(rows, prompts):
        content = prompt.replace("\0", " ").encode("utf-8", "replace")[:PROMPT_BYTES]
        row[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else 0
    return rows


def _as_texts(rows: Tensor) -> list[str]:
    return [bytes(row).rstrip(b"\0").decode("utf-8", "ignore") for row in rows.cpu().numpy()]
