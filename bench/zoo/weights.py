"""Weights of the zoo: safetensors files, a JSON card beside each, loading with the hash checked.

The safetensors header's "model" (JSON) holds ``architecture`` and ``config``, so a file describes itself.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.errors import BenchError, WeightError, nearest

WEIGHTS_DIR = Path(__file__).parent / "weights"


def _clip(**config: Any) -> nn.Module:
    from bench.zoo.clip import VOCABULARY, ZooClip

    return ZooClip(vocabulary=WEIGHTS_DIR / VOCABULARY, **config)


def _network(name: str, module: str = "networks") -> Callable[..., nn.Module]:
    def build(**config: Any) -> nn.Module:
        return getattr(importlib.import_module(f"bench.zoo.{module}"), name)(**config)

    return build


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "generator": _network("Generator"),
    "layered-generator": _network("LayeredGenerator", "layered"),
    "layered-autoencoder": _network("LayeredAutoencoder", "layered"),
    "vae": _network("VariationalAutoencoder"),
    "plain-classifier": _network("PlainClassifier"),
    "residual-classifier": _network("ResidualClassifier"),
    "clip": _clip,
    "noise-unet": _network("NoiseUnet", "unet"),
}


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def model_names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.stem for path in WEIGHTS_DIR.glob("*.json"))


@cache
def card(name: str) -> dict[str, Any]:
    """The card of a shipped model: data, recipe, seed, figures, sha256. Raises WeightError if unknown."""
    path = WEIGHTS_DIR / f"{name}.json"
    if not path.exists():
        names = model_names()
        raise WeightError(f"the zoo has no model '{name}'.{nearest(name, names)} Models: {', '.join(names)}.")
    return json.loads(path.read_text())


def model_sha256(name: str) -> str:
    """The sha256 that the card declares for a shipped model."""
    return card(name)["sha256"]


def save_model(model: nn.Module, architecture: str, path: Path, *, half: bool = False) -> str:
    """Writes a self-describing safetensors file and returns its sha256."""
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    # One metadata key: safetensors writes several in random order, and the hash would change.
    about = json.dumps({"architecture": architecture, "config": model.config}, sort_keys=True)
    save_file(state, path, metadata={"model": about})
    return file_sha256(path)


def read_model(path: Path, sha256: str | None = None) -> nn.Module:
    """The network in a file written by :func:`save_model`: float32, eval mode, frozen, on the CPU.

    Raises WeightError when the file is missing, its hash differs from ``sha256``, it is not a
    safetensors file, or a key is missing, unexpected or of another shape.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightError(
            f"weight file '{path}' is missing. Zoo weights ship with the package "
            "('tr0n-bench zoo list'); a path of your own must point to a .safetensors file."
        )
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise WeightError(
            f"weight file '{path}' is corrupt or another version: sha256 is {found}, expected {sha256}. "
            "Restore the file or correct the expected hash."
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("model", "{}"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightError(f"weight file '{path}' is not a readable safetensors file: {error}.") from error
    architecture = about.get("architecture", "")
    if architecture not in ARCHITECTURES:
        raise WeightError(
            f"weight file '{path}' names architecture '{architecture}'."
            f"{nearest(architecture, ARCHITECTURES)} Known: {', '.join(ARCHITECTURES)}."
        )
    model = ARCHITECTURES[architecture](**about["config"])
    own = model.state_dict()
    problems = [f"missing key '{k}'" for k in own.keys() - state.keys()]
    problems += [f"unexpected key '{k}'" for k in state.keys() - own.keys()]
    problems += [
        f"'{k}' has shape {tuple(v.shape)}, expected {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and v.shape != own[k].shape
    ]
    if problems:
        raise WeightError(
            f"weight file '{path}' does not fit {architecture}: {'; '.join(sorted(problems)[:5])}."
        )
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return model.eval().requires_grad_(False)


def load_model(
    name: str, device: torch.device | str = "cpu", *, path: str | None = None, sha256: str | None = None
) -> Any:
    """A zoo network on ``device``: eval mode, frozen, float32.

    ``path`` replaces the shipped file, then ``sha256`` (if given) is what it must hash to; a shipped file
    must match its card. Raises WeightError as :func:`read_model` does.
    """
    if path is not None:
        return read_model(Path(path), sha256).to(device)
    return read_model(WEIGHTS_DIR / f"{name}.safetensors", sha256 or model_sha256(name)).to(device)


def verify_all() -> dict[str, str]:
    """Maps every shipped model to a text that begins with "ok", or to what is wrong with its file."""
    report = {}
    for name in model_names():
        try:
            load_model(name)
            report[name] = "ok"
        except WeightError as error:
            report[name] = str(error)
        except BenchError as error:  # an extra is missing; the hash has been compared by then
            report[name] = f"ok, not built: {error}"
    return report
