"""Which CLIP of open_clip a suite means: model, recipe and files. Planning reads it, no weight is touched."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from bench.assets.missing import Published
from bench.errors import SuiteError, WeightError, nearest
from bench.torchvision_guard import ensure_torchvision

CONFIG_FILE = "open_clip_config.json"
# (model, tag) → name in the lock file of the one file whose hash is known.
LOCKED = {
    ("ViT-B-32", "openai"): "openai-clip-vit-b-32",
    ("ViT-L-14", "openai"): "openai-clip-vit-l-14",
    ("ViT-B-32", "laion2b_s34b_b79k"): "laion-clip-vit-b-32",
}


@cache
def model_names() -> tuple[str, ...]:
    """The models that the installed open_clip describes, without importing it, which takes seconds."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        return ()
    return tuple(sorted(path.stem for path in (Path(spec.origin).parent / "model_configs").glob("*.json")))


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """A CLIP (or SigLIP) of open_clip.

    ``model`` is open_clip's name of the architecture; ``pretrained`` its tag of the weights, which settles
    mean, deviation, interpolation and activation: QuickGELU where the tag was trained with it. ``weights``
    is the local file: ``.safetensors``, a torch state dict or training checkpoint, or OpenAI's TorchScript
    archive, which is code and needs ``trust: true`` and ``sha256``. ``config`` is an
    ``open_clip_config.json`` (the layout of model hubs) and replaces ``model`` and ``pretrained``.
    ``tokenizer`` is a local folder in transformers' layout, for models whose tokenizer open_clip takes
    from a hub (SigLIP). Nothing is downloaded: ``tr0n-bench assets fetch`` does that.
    """

    model: str = "ViT-B-32"
    pretrained: str | None = None
    weights: str
    sha256: str | None = None
    trust: bool = False
    config: str | None = None
    tokenizer: str | None = None
    companions: ClassVar[tuple[str, ...]] = ("config", "tokenizer")

    def __post_init__(self) -> None:
        if self.config is not None:
            if Path(self.config).name != CONFIG_FILE:
                raise SuiteError(f"config must be a file named {CONFIG_FILE}, got '{self.config}'.")
            if self.pretrained is not None:
                raise SuiteError("config settles the preprocessing itself: remove pretrained.")
            return
        names = model_names()
        if names and self.model not in names:
            raise SuiteError(
                f"model '{self.model}' is none of open_clip's.{nearest(self.model, names)} "
                f"Allowed: a name of open_clip.list_models(), or config: path/to/{CONFIG_FILE}."
            )
        if self.pretrained is None:
            raise SuiteError(
                "pretrained is missing: name open_clip's tag of the recipe that the weights follow (openai, "
                "laion2b_s34b_b79k, webli, …), as mean, deviation and activation depend on it; or give "
                f"config: path/to/{CONFIG_FILE}."
            )

    @property
    def assets(self) -> dict[str, Published | None]:
        """Fields that hold files' paths, with what is known of the public file."""
        files: dict[str, Published | None] = {"weights": published(self)}
        if self.config is not None:
            files["config"] = Published(what=f"{CONFIG_FILE} of a CLIP", source="the model's page on its hub")
        if self.tokenizer is not None:
            files["tokenizer"] = Published(
                what=f"tokenizer folder of {self.model} (tokenizer.json and its companions)",
                source="the model's page on its hub",
            )
        return files


def published(files: ClipFiles) -> Published | None:
    """What is known of the public file of a model and tag."""
    if files.config is not None or files.pretrained is None:
        return None
    name = files.model.removesuffix("-quickgelu")
    if (name, files.pretrained) in LOCKED:
        return Published.locked(LOCKED[name, files.pretrained])
    tag = recipe(files)
    source = f"https://huggingface.co/{tag['hf_hub'].strip('/')}" if tag.get("hf_hub") else tag.get("url", "")
    return Published(what=f"CLIP {files.model}, '{files.pretrained}'", source=source)


def recipe(files: ClipFiles) -> dict[str, Any]:
    """open_clip's entry for a model and tag: mean, std, interpolation, resize_mode, quick_gelu.

    Raises WeightError for a tag that open_clip does not know for the model, and where a model with QuickGELU
    by name meets weights that were trained without.
    """
    ensure_torchvision()
    from open_clip import list_pretrained_tags_by_model
    from open_clip.pretrained import get_pretrained_cfg

    assert files.pretrained is not None
    found = get_pretrained_cfg(files.model, files.pretrained)
    if not found:
        tags = list_pretrained_tags_by_model(files.model)
        # A model named '-quickgelu' lists only the tags that fit it.
        plain = files.model.removesuffix("-quickgelu")
        other = plain != files.model and bool(get_pretrained_cfg(plain, files.pretrained))
        why = f" Those weights were trained without QuickGELU: use model: {plain}." if other else ""
        raise WeightError(
            f"open_clip has no weights '{files.pretrained}' for model '{files.model}'.{why}"
            f"{'' if other else nearest(files.pretrained, tags)} Its tags: {', '.join(tags) or 'none'}."
        )
    if files.model.endswith("-quickgelu") and not found.get("quick_gelu"):
        raise WeightError(
            f"model '{files.model}' computes with QuickGELU, and its weights '{files.pretrained}' were "
            f"trained without. Use model: {files.model.removesuffix('-quickgelu')}."
        )
    return dict(found)


def hub_config(path: Path) -> dict[str, Any]:
    """An ``open_clip_config.json``: ``model_cfg`` and ``preprocess_cfg``. Raises WeightError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model, preprocess = content["model_cfg"], content["preprocess_cfg"]
        if not isinstance(model, dict) or not isinstance(preprocess, dict):
            raise ValueError("'model_cfg' and 'preprocess_cfg' must be mappings")
        missing = [key for key in ("mean", "std") if key not in preprocess]
        if missing:
            raise ValueError(f"preprocess_cfg lacks '{missing[0]}'")
    except FileNotFoundError:
        raise WeightError(f"config '{path}' is missing. Correct 'config' or put the file there.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightError(
            f"config '{path}' is not a model hub's {CONFIG_FILE}: {error}. It holds model_cfg and "
            "preprocess_cfg."
        ) from error
    return {"model_cfg": model, "preprocess_cfg": preprocess}
