"""Loads a CLIP of open_clip from a local file, with its own preprocessing and tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.assets.state import check_state, read_state
from bench.auxiliaries.clip_files import ClipFiles, hub_config, published, recipe
from bench.errors import WeightError
from bench.torchvision_guard import ensure_torchvision

_log = logging.getLogger("bench.auxiliaries")

# In OpenAI's archives beside the weights: the sizes as tensors.
_SIZES = ("input_resolution", "context_length", "vocab_size")


class OpenClip(nn.Module):
    """A frozen CLIP in float32, with what it was trained to be shown.

    ``encode_image`` takes images already normalised by ``image_mean`` and ``image_std``, (N, 3, image_size,
    image_size); ``prepare`` makes these from uint8. Embeddings (N, embed_dim) are not normalised.
    ``notes`` says what was settled on loading.
    """

    def __init__(self, model: nn.Module, embed_dim: int, tokenizer: Tokenizer, preprocess: Mapping[str, Any]):
        super().__init__()
        self.clip: Any = model
        self.embed_dim, self.tokenizer = embed_dim, tokenizer
        self.preprocess = dict(preprocess)
        size = self.preprocess["size"]
        self.image_size: int = size if isinstance(size, int) else size[0]
        self.image_mean, self.image_std = tuple(preprocess["mean"]), tuple(preprocess["std"])
        self.notes: dict[str, Any] = {}

    def encode_image(self, images_NCHW: Tensor) -> Tensor:
        return self.clip.encode_image(images_NCHW)

    def encode_text(self, tokens_NL: Tensor) -> Tensor:
        return self.clip.encode_text(tokens_NL)

    def prepare(self, images_NCHW: np.ndarray) -> Tensor:
        """uint8 (N, 3, H, W) → normalised float32 (N, 3, image_size, image_size), on the CPU.

        By open_clip's own transform on Pillow images: resize, crop and rounding are exactly those that
        published numbers were made with.
        """
        ensure_torchvision()
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from PIL import Image

        transform = image_transform_v2(PreprocessCfg(**self.preprocess), is_train=False)
        rows = [transform(Image.fromarray(image.transpose(1, 2, 0))) for image in images_NCHW]
        return torch.stack(rows)


class Tokenizer:
    """Text to token ids, int64 (N, context). ``truncated`` tells which texts do not fit.

    A text that is too long is cut before its end token, which stays, as open_clip and transformers do.
    """

    def __init__(self, inner: Any, context_length: int):
        self.inner, self.context_length = inner, context_length
        # of cells that share prompts each asks for the same texts
        self._length = lru_cache(maxsize=2**16)(self._count)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.inner(list(texts))

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        return [self._length(text) > self.context_length for text in texts]

    def _count(self, text: str) -> int:
        """Tokens of the whole text, special ones included."""
        if hasattr(self.inner, "encode"):
            return len(self.inner.encode(text)) + 2
        return len(self.inner.tokenizer(self.inner.clean_fn(text)).input_ids)


def load_open_clip(files: ClipFiles, device: torch.device) -> OpenClip:
    """The network of a configuration on ``device``: eval mode, frozen, float32.

    Raises WeightError where a file is missing, is code and not trusted, or does not fit the model, naming
    the keys; and for a tag that the model does not have.
    """
    ensure_torchvision()
    state = read_state(
        files.weights, published=published(files), sha256=files.sha256, trust=files.trust, inner="state_dict"
    )
    model, preprocess, config = _build(files)
    _fill(model, state, files)
    network = OpenClip(model, int(config["embed_dim"]), _tokenizer(files, config["text_cfg"]), preprocess)
    network.notes = {"quick_gelu": bool(config.get("quick_gelu", False)), "pretrained": files.pretrained}
    return network.to(device).eval().requires_grad_(False)


def _build(files: ClipFiles) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """The network with random weights, its preprocessing and its model configuration."""
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    if files.config is not None:
        found = hub_config(Path(files.config))
        config, overlay, name = (
            found["model_cfg"],
            found["preprocess_cfg"],
            f"local-dir:{Path(files.config).parent}",
        )
    else:
        config, overlay, name = dict(open_clip.get_model_config(files.model)), recipe(files), files.model
    if "hf_model_name" in config["text_cfg"]:
        raise WeightError(
            f"'{name}' builds its text encoder from a configuration on a model hub, which is not supported: "
            "nothing is downloaded on loading. Use a model whose text encoder is open_clip's own."
        )
    if files.config is None and overlay.get("quick_gelu") and not config.get("quick_gelu"):
        _log.warning(
            "model '%s' is built with QuickGELU, which its weights '%s' were trained with.",
            files.model, files.pretrained,
        )  # fmt: skip
        config["quick_gelu"] = True
    quick_gelu = bool(config.get("quick_gelu", False))
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random, which they are for now
    try:
        model = open_clip.create_model(
            name, load_weights=False, force_quick_gelu=quick_gelu, pretrained_text=False
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise WeightError(f"open_clip cannot build '{name}': {error}") from error
    finally:
        logging.disable(previous)
    preprocess = merge_preprocess_dict(PreprocessCfg(), overlay)
    preprocess["size"] = model.visual.image_size
    return model, preprocess, config


def _fill(model: nn.Module, state: dict[str, Tensor], files: ClipFiles) -> None:
    """Loads a state dict, every key of it and of the model used. Older layouts are renamed first."""
    from open_clip.model import convert_to_custom_text_state_dict

    state = {key.removeprefix("module."): value for key, value in state.items() if key not in _SIZES}
    state.pop("text.transformer.embeddings.position_ids", None)  # stored by older transformers; constant
    own = model.state_dict()
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):  # a number as (1,) in some files
        if key in state and key in own and state[key].numel() == 1:
            state[key] = state[key].reshape(own[key].shape)
    check_state(
        state, own, what=f"CLIP {files.model if files.config is None else files.config}", path=files.weights
    )
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()})


def _tokenizer(files: ClipFiles, text: Mapping[str, Any]) -> Tokenizer:
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    length, options = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    hub = text.get("hf_tokenizer_name")
    if not hub:
        if files.tokenizer is not None:
            raise WeightError(f"model '{files.model}' brings its tokenizer along: remove 'tokenizer'.")
        return Tokenizer(SimpleTokenizer(context_length=length, **options), length)
    if files.tokenizer is None:
        raise WeightError(
            f"model '{files.model}' takes its tokenizer from a model hub. Put the files of '{hub}' "
            "(tokenizer.json, tokenizer_config.json, …) into a folder and name it: "
            "'tokenizer: path/to/folder'."
        )
    return Tokenizer(_hub_tokenizer(HFTokenizer, Path(files.tokenizer), length, options), length)


def _hub_tokenizer(make: Any, folder: Path, length: int, options: Mapping[str, Any]) -> Any:
    if not folder.is_dir():
        raise WeightError(f"tokenizer folder '{folder}' is missing. Correct 'tokenizer' in the suite.")
    try:
        import transformers  # noqa: F401 - open_clip's tokenizer needs it
    except ImportError as error:
        raise WeightError(
            "this model's tokenizer needs transformers: pip install 'tr0n-bench[transformers]'."
        ) from error
    try:
        return make(str(folder), context_length=length, local_files_only=True, **options)
    except (OSError, ValueError) as error:
        raise WeightError(f"tokenizer folder '{folder}' cannot be read: {error}") from error
