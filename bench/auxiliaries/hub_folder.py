"""Networks in transformers' folder layout: read from disk alone, and refused unless whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bench.assets.missing import Published, missing_asset
from bench.errors import WeightError, nearest
from bench.extras import optional

SHOWN = 5


def need_transformers(what: str) -> Any:
    """The package transformers, quiet. Raises BenchError naming the extra where it is not installed."""
    transformers = optional("transformers", what)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def load_pretrained(
    folder: Path,
    classes: Mapping[str, str],
    published: Published | None,
    *,
    field: str = "weights",
    dtype: str = "float32",
) -> tuple[Any, Any]:
    """The network of a folder (eval mode, frozen, on the CPU) and its configuration.

    ``classes`` maps each allowed ``model_type`` to its class in transformers. Nothing is downloaded and no
    code of the folder is run. Raises WeightError where the folder is missing or of another type, and names
    weights that are missing, not expected or of another shape.
    """
    transformers = need_transformers(f"'{folder}'")
    if not folder.is_dir():
        if published is not None:
            raise missing_asset(published, folder, field=field)
        raise WeightError(f"folder '{folder}' is missing. Correct '{field}' in the suite.")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise WeightError(f"'{folder}/config.json' cannot be read: {_first_line(error)}.") from error
    if config.model_type not in classes:
        raise WeightError(
            f"'{folder}' holds a '{config.model_type}'.{nearest(config.model_type, classes)} "
            f"Allowed here: {', '.join(classes)}."
        )
    make = getattr(transformers, classes[config.model_type])
    try:
        model, info = make.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=getattr(torch, dtype),
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    except Exception as error:  # whatever torch, safetensors and transformers meet in damaged files
        raise WeightError(f"'{folder}' cannot be loaded: {_first_line(error)}.") from error
    problems = [f"missing key '{key}'" for key in info["missing_keys"]]
    # Stored by older versions of transformers; constant, and no parameter of newer ones.
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith("position_ids")]
    problems += [f"unexpected key '{key}'" for key in unexpected]
    problems += [
        f"'{key}' has shape {tuple(found)}, expected {tuple(wanted)}"
        for key, found, wanted in info["mismatched_keys"]
    ]
    if problems:
        rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise WeightError(
            f"'{folder}' does not fit {classes[config.model_type]}: "
            f"{'; '.join(sorted(problems)[:SHOWN])}{rest}. Fetch the whole folder."
        )
    return model.eval().requires_grad_(False), config


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
