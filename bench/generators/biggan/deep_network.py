"""BigGAN-deep's generator for inference, and its published files: a config.json and a state dict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from bench.assets.state import check_state
from bench.errors import WeightError
from bench.generators.biggan.layers import ConditionalNorm, Norm, SelfAttention, upsample
from bench.generators.biggan.spectral import fold_two_vectors

# (doubles the side, channels before and after in units of the width) of the published 128 px model; the
# larger ones have further pairs.
_FIRST = ((False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8))
_LAST = ((True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1))
_LAYERS: dict[int, tuple[tuple[bool, int, int], ...]] = {
    128: (*_FIRST, *_LAST),
    256: (*_FIRST, (True, 8, 8), (False, 8, 8), *_LAST),
    512: (*_FIRST, (True, 8, 8), (False, 8, 8), *_LAST, (False, 1, 1), (True, 1, 1)),
}


Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a published config.json says; ``attention_layer_position`` counts residual blocks."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    output_dim: int
    layers: tuple[tuple[bool, int, int], ...]
    z_dim: Positive = 128
    class_embed_dim: Positive = 128
    channel_width: Positive = 128
    num_classes: Positive = 1000
    attention_layer_position: Annotated[int, Field(ge=0)] = 8
    eps: Annotated[float, Field(gt=0)] = 1e-4
    n_stats: Annotated[int, Field(ge=2)] = 51

    @classmethod
    def published(cls, resolution: int) -> Architecture:
        """That of the published model at 128, 256 or 512 px."""
        return cls(output_dim=resolution, layers=_LAYERS[resolution])

    @classmethod
    def read(cls, path: Path | str) -> Architecture:
        """That of a config.json. Raises WeightError naming the file and the key."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            found = TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "it"
            raise WeightError(f"config file '{path}': {key}: {first['msg']}.") from error
        except (OSError, ValueError) as error:
            raise WeightError(f"config file '{path}' cannot be read as JSON: {error}.") from error
        if found.attention_layer_position >= len(found.layers):
            raise WeightError(
                f"config file '{path}': attention_layer_position is {found.attention_layer_position}, but "
                f"there are {len(found.layers)} layers."
            )
        side = 4 << sum(up for up, _, _ in found.layers)
        if side != found.output_dim:
            raise WeightError(
                f"config file '{path}': output_dim is {found.output_dim}, but its layers make {side} px."
            )
        return found


class DeepBlock(nn.Module):
    """Bottleneck block: 1 x 1, 3 x 3, 3 x 3, 1 x 1, each after norm and ReLU; the shortcut drops channels."""

    def __init__(self, before: int, after: int, condition_dim: int, up: bool, eps: float):
        super().__init__()
        self.up, self.after = up, after
        middle = before // 4
        self.bn_0 = ConditionalNorm(before, condition_dim, eps)
        self.conv_0 = nn.Conv2d(before, middle, 1)
        self.bn_1 = ConditionalNorm(middle, condition_dim, eps)
        self.conv_1 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_2 = ConditionalNorm(middle, condition_dim, eps)
        self.conv_2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.bn_3 = ConditionalNorm(middle, condition_dim, eps)
        self.conv_3 = nn.Conv2d(middle, after, 1)

    def forward(self, x_NCHW: Tensor, condition_NE: Tensor) -> Tensor:
        h = self.conv_0(F.relu(self.bn_0(x_NCHW, condition_NE)))
        h = F.relu(self.bn_1(h, condition_NE))
        shortcut = x_NCHW[:, : self.after]
        if self.up:
            h, shortcut = upsample(h), upsample(shortcut)
        h = self.conv_2(F.relu(self.bn_2(self.conv_1(h), condition_NE)))
        return shortcut + self.conv_3(F.relu(self.bn_3(h, condition_NE)))


class Layers(nn.Module):
    """The generator proper: condition (N, E) to images (N, 3, H, W) in (-1, 1)."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        width, eps = architecture.channel_width, architecture.eps
        condition_dim = 2 * architecture.z_dim
        self.gen_z = nn.Linear(condition_dim, 4 * 4 * 16 * width)
        self.layers = nn.ModuleList()
        for i, (up, before, after) in enumerate(architecture.layers):
            if i == architecture.attention_layer_position:
                self.layers.append(SelfAttention(width * before, gamma_shape=(1,)))
            self.layers.append(DeepBlock(width * before, width * after, condition_dim, up, eps))
        self.bn = Norm(width, eps)
        # The published layer makes ``width`` channels of which only the first three are an image.
        self.conv_to_rgb = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, condition_NE: Tensor) -> Tensor:
        h = self.gen_z(condition_NE).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            h = layer(h) if isinstance(layer, SelfAttention) else layer(h, condition_NE)
        return torch.tanh(self.conv_to_rgb(F.relu(self.bn(h))))


class BigGanDeepNetwork(nn.Module):
    """z (N, Z) and y (N, Z) to images (N, 3, H, W) in (-1, 1); ``embeddings`` is the table (Z, classes)."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.embeddings = nn.Linear(architecture.num_classes, architecture.z_dim, bias=False)
        self.generator = Layers(architecture)

    def forward(self, z_NZ: Tensor, y_NE: Tensor) -> Tensor:
        return self.generator(torch.cat([z_NZ, y_NE], dim=1))


_ATTENTION = {"theta": "snconv1x1_theta", "phi": "snconv1x1_phi", "g": "snconv1x1_g", "o": "snconv1x1_o_conv"}


def published_shapes(network: BigGanDeepNetwork) -> dict[str, tuple[int, ...]]:
    """Key → shape of the published state dict: spectral norm with both vectors, and norms with
    ``n_stats`` statistics, one for each truncation from 0 to 1."""
    shapes: dict[str, tuple[int, ...]] = {}
    n_stats = network.architecture.n_stats
    shapes["embeddings.weight"] = tuple(network.embeddings.weight.shape)
    for name, layer in network.named_modules():
        if isinstance(layer, ConditionalNorm | Norm):
            channels = len(layer.stored_mean)
            shapes[f"{name}.running_means"] = shapes[f"{name}.running_vars"] = (n_stats, channels)
            if isinstance(layer, Norm):
                shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)
        elif isinstance(layer, SelfAttention):
            shapes[f"{name}.gamma"] = (1,)
        elif isinstance(layer, nn.Conv2d | nn.Linear) and layer is not network.embeddings:
            key = _published_name(name)
            outputs, *inputs = layer.weight.shape
            if name == "generator.conv_to_rgb":
                outputs = network.architecture.channel_width
            shapes[f"{key}.weight_orig"] = (outputs, *inputs)
            shapes[f"{key}.weight_u"] = (outputs,)
            shapes[f"{key}.weight_v"] = (math.prod(inputs),)
            if layer.bias is not None:
                shapes[f"{key}.bias"] = (outputs,)
    return shapes


def _published_name(name: str) -> str:
    """The published name of one of the network's convolutions and linear layers."""
    parent, _, last = name.rpartition(".")
    if parent.rpartition(".")[2].startswith("bn_"):
        last = {"gain": "scale", "bias": "offset"}[last]
    return f"{parent}.{_ATTENTION.get(last, last)}"


def load_published(
    network: BigGanDeepNetwork, state: Mapping[str, Tensor], truncation: float, path: Path | str
) -> None:
    """Fills the network from a published state dict: spectral norm folded in, statistics of ``truncation``.

    Raises WeightError naming the keys that are missing, not expected or of another shape.
    """
    check_state(state, published_shapes(network), what="BigGAN-deep", path=path)
    own: dict[str, Tensor] = {"embeddings.weight": state["embeddings.weight"]}
    for name, layer in network.named_modules():
        if isinstance(layer, ConditionalNorm | Norm):
            for ours, theirs in (("stored_mean", "running_means"), ("stored_var", "running_vars")):
                own[f"{name}.{ours}"] = statistics_at(state[f"{name}.{theirs}"], truncation)
            if isinstance(layer, Norm):
                own[f"{name}.gain"], own[f"{name}.bias"] = state[f"{name}.weight"], state[f"{name}.bias"]
        elif isinstance(layer, SelfAttention):
            own[f"{name}.gamma"] = state[f"{name}.gamma"]
        elif isinstance(layer, nn.Conv2d | nn.Linear) and layer is not network.embeddings:
            key = _published_name(name)
            parts = (state[f"{key}.{part}"] for part in ("weight_orig", "weight_u", "weight_v"))
            own[f"{name}.weight"] = fold_two_vectors(*parts)[: len(layer.weight)]
            if layer.bias is not None:
                own[f"{name}.bias"] = state[f"{key}.bias"][: len(layer.bias)]
    network.load_state_dict(own)


def statistics_at(table_SC: Tensor, truncation: float) -> Tensor:
    """(C,): the row for a truncation in [0, 1], of S rows for 0, 1 / (S - 1), …, 1.

    Between two rows the published code weighs the lower one by the distance from it, not by one minus that;
    kept, as its images are what the model is known for. Unlike there, a truncation that is a row up to
    rounding gets that row (0.58 / 0.02 is 28.999999999999996, for which the published code takes row 28).
    """
    position = truncation * (len(table_SC) - 1)
    if abs(position - round(position)) < 1e-6:
        return table_SC[round(position)]
    low = int(position)
    share = position - low
    return table_SC[low] * share + table_SC[low + 1] * (1 - share)


def architecture_of(path: Path | str | None, resolution: int) -> Architecture:
    """That of a config.json, or the published one. Raises WeightError where it makes another resolution."""
    if path is None:
        return Architecture.published(resolution)
    found = Architecture.read(path)
    if found.output_dim != resolution:
        raise WeightError(
            f"config file '{path}': output_dim is {found.output_dim}, but the suite says resolution "
            f"{resolution}. Correct one of them."
        )
    return found


def as_json(architecture: Architecture) -> dict[str, Any]:
    """Plain data as a config.json holds it."""
    return {**vars(architecture), "layers": [list(layer) for layer in architecture.layers]}
