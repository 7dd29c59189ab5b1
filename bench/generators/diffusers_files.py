"""Folders in diffusers' layout: models loaded from disk alone, and refused unless every key fits."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bench.assets.missing import Published, missing_asset
from bench.errors import WeightError, nearest
from bench.extras import optional

WHAT = "a generator of diffusers' format"
INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
UNUSED = ("safety_checker", "image_encoder")  # guards and image prompts, which no condition needs


def read_index(folder: Path, published: Published) -> dict[str, tuple[str, str]]:
    """Part → (library, class) of a pipeline's folder, parts that it leaves out left out.

    Raises WeightError where there is no such folder, where its index cannot be read, and where it names code
    of its own: diffusers would run Python files of a local folder without asking.
    """
    path = folder / INDEX
    if not path.is_file():
        raise missing_asset(published, path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pipeline = content.get("_class_name")
        parts = {
            name: (value[0], value[1])
            for name, value in content.items()
            if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
        }
    except (OSError, ValueError, AttributeError) as error:
        raise WeightError(f"'{path}' is not a pipeline's index: {error}. Fetch it anew.") from error
    own = [] if isinstance(pipeline, str) else ["_class_name"]
    own += [name for name, (library, _) in parts.items() if library not in LIBRARIES and name not in UNUSED]
    if own:
        raise WeightError(
            f"'{path}': '{own[0]}' is {content.get(own[0])!r}, no class of {' or '.join(LIBRARIES)}. Code in "
            "a model's folder is not run: make a package of it and use 'kind: python'."
        )
    return parts


def load_part(
    folder: Path,
    name: str,
    library: str,
    class_name: str,
    *,
    dtype: torch.dtype = torch.float32,
    allowed: Iterable[str] | None = None,
) -> Any:
    """The model of the subfolder ``name``: eval mode, frozen, on the CPU.

    ``allowed`` limits the classes. Raises WeightError where a key is missing, not expected or of another
    shape, and where the folder names a class that ``library`` does not have.
    """
    place = folder / name
    module = optional(library, WHAT)
    known = [n for n in dir(module) if not n.startswith("_")] if allowed is None else list(allowed)
    cls = getattr(module, class_name, None) if class_name in known else None
    if cls is None or not hasattr(cls, "from_pretrained"):
        listed = f" Allowed: {', '.join(known)}." if allowed is not None else ""
        raise WeightError(
            f"'{folder / INDEX}' names '{class_name}' of {library} for '{name}', which is not "
            f"known.{nearest(class_name, known)}{listed}"
        )
    if not (place / "config.json").is_file():
        raise WeightError(f"'{place}' has no config.json, so '{name}' cannot be loaded. Fetch it anew.")
    try:
        with quiet():
            model, info = cls.from_pretrained(
                str(place),
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are told by name
                dtype=dtype,
                local_files_only=True,
            )
    except Exception as error:  # of many types: a file that is missing or damaged, a shape that differs
        text = " ".join(str(error).split())[:600]
        raise WeightError(f"'{place}' cannot be loaded as {class_name}: {text}") from error
    _check(info, place, class_name)
    return model.eval().requires_grad_(False)


def _check(info: Mapping[str, Any], place: Path, class_name: str) -> None:
    problems = [f"missing key '{key}'" for key in info.get("missing_keys", ())]
    # CLIP's positions were a saved buffer once; they are 0, 1, 2, …
    unexpected = [key for key in info.get("unexpected_keys", ()) if not key.endswith("position_ids")]
    problems += [f"unexpected key '{key}'" for key in unexpected]
    problems += [
        f"'{item[0]}' has shape {tuple(item[1])}, expected {tuple(item[2])}"
        for item in info.get("mismatched_keys", ())
    ]
    problems += [str(message) for message in info.get("error_msgs", ())]
    if problems:
        raise WeightError(
            f"'{place}' does not fit {class_name}: {'; '.join(sorted(problems)[:5])}. Fetch it anew, or "
            "correct its config.json."
        )


@contextmanager
def quiet():
    """Hides what diffusers and transformers log while loading; what is wrong comes as an error."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    bars = [optional(f"{name}.utils.logging", WHAT, name) for name in ("diffusers", "transformers")]
    for logger, bar in zip(loggers, bars):
        logger.setLevel(logging.ERROR)
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
