"""Published state dicts: read without running code, and refused unless they fit key by key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.assets.missing import Published, missing_asset
from bench.assets.pickles import load_torch_file
from bench.errors import WeightError

SHOWN = 5


def read_state(
    path: Path | str,
    *,
    published: Published | None = None,
    sha256: str | None = None,
    trust: bool = False,
    inner: str | None = None,
) -> dict[str, Tensor]:
    """Key → tensor (CPU, dtypes as stored) of a ``.safetensors`` file or of what torch.save wrote.

    ``inner`` is the key below which a training checkpoint holds the state dict, if the file is one.
    ``sha256`` is compared where given. A pickle that needs code is loaded only with ``trust`` and its
    sha256. Raises WeightError, for a missing file that of :func:`bench.assets.missing.missing_asset`.
    """
    path = Path(path)
    if published is not None and not path.is_file():
        raise missing_asset(published, path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path, sha256)
    content = load_torch_file(path, trust=trust, sha256=sha256)
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        raise WeightError(f"weight file '{path}' holds a {type(content).__name__}, expected a state dict.")
    if inner is not None and isinstance(content.get(inner), Mapping):
        content = content[inner]
    wrong = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if wrong:
        raise WeightError(
            f"weight file '{path}' is no plain state dict: '{wrong[0]}' holds a "
            f"{type(content[wrong[0]]).__name__}, expected a tensor. Save the inner state dict by itself."
        )
    return {str(key): value for key, value in content.items()}


def _read_safetensors(path: Path, sha256: str | None) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WeightError(
            f"weight file '{path}' is missing. Correct the path or put the file there."
        ) from None
    except OSError as error:
        raise WeightError(f"weight file '{path}' cannot be read: {error}.") from error
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256.lower():
        raise WeightError(
            f"weight file '{path}' is corrupt or another version: sha256 is {found}, expected {sha256}. "
            "Restore the file or correct the expected hash."
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise WeightError(f"weight file '{path}' is not a readable safetensors file: {error}.") from error


def check_state(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor | tuple[int, ...]],
    *,
    what: str,
    path: Path | str,
) -> None:
    """Raises WeightError naming the keys that are missing, not expected, or of another shape.

    ``expected`` maps each key to its shape, or to a tensor of it. ``what`` names the format in the message.
    """
    shapes = {key: tuple(getattr(value, "shape", value)) for key, value in expected.items()}
    problems = [f"missing key '{key}'" for key in shapes.keys() - state.keys()]
    problems += [f"unexpected key '{key}'" for key in state.keys() - shapes.keys()]
    problems += [
        f"'{key}' has shape {tuple(value.shape)}, expected {shapes[key]}"
        for key, value in state.items()
        if key in shapes and tuple(value.shape) != shapes[key]
    ]
    if problems:
        rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise WeightError(
            f"weight file '{path}' does not fit {what}: {'; '.join(sorted(problems)[:SHOWN])}{rest}. "
            "Use the published file, or correct the fields that describe its architecture."
        )
