"""BigGAN's generator for inference, with the module names of ajbrock/BigGAN-PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.assets.state import check_state
from bench.generators.biggan.layers import ConditionalNorm, Norm, SelfAttention, upsample
from bench.generators.biggan.spectral import fold_one_vector

Resolution = Literal[128, 256, 512]
# Channels at each side from 4 px on, in units of the width; z is cut into one chunk for the first layer and
# one for each block.
WIDTHS: dict[int, tuple[int, ...]] = {
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
ATTENTION_SIDE = {128: 64, 256: 128, 512: 64}
Z_DIM = {128: 120, 256: 140, 512: 128}
Y_DIM = 128


class Block(nn.Module):
    """Residual block that doubles the side: norm, ReLU, up, 3 x 3; norm, ReLU, 3 x 3; 1 x 1 shortcut."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, eps: float):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_sc = nn.Conv2d(in_channels, out_channels, 1)
        self.bn1 = ConditionalNorm(in_channels, condition_dim, eps)
        self.bn2 = ConditionalNorm(out_channels, condition_dim, eps)

    def forward(self, x_NCHW: Tensor, condition_NE: Tensor) -> Tensor:
        h = self.conv1(upsample(F.relu(self.bn1(x_NCHW, condition_NE))))
        h = self.conv2(F.relu(self.bn2(h, condition_NE)))
        # A 1 x 1 convolution and nearest-neighbour upsampling commute; this order costs a quarter.
        return h + upsample(self.conv_sc(x_NCHW))


class BigGanNetwork(nn.Module):
    """z (N, Z) and y (N, 128) to images (N, 3, H, W) in (-1, 1); ``shared`` is the class embedding table."""

    def __init__(self, resolution: Resolution, *, width: int, num_classes: int, bn_eps: float):
        super().__init__()
        channels = [width * k for k in WIDTHS[resolution]]
        self.z_dim = Z_DIM[resolution]
        self.chunk = self.z_dim // len(channels)
        self.shared = nn.Embedding(num_classes, Y_DIM)
        self.linear = nn.Linear(self.chunk, channels[0] * 4 * 4)
        self.blocks = nn.ModuleList()
        for i, (before, after) in enumerate(pairwise(channels)):
            layers = nn.ModuleList([Block(before, after, Y_DIM + self.chunk, bn_eps)])
            if 8 << i == ATTENTION_SIDE[resolution]:
                layers.append(SelfAttention(after))
            self.blocks.append(layers)
        self.output_layer = nn.Sequential(
            Norm(channels[-1], eps=1e-5),  # the published code never passes its BN_eps on to this one
            nn.ReLU(),
            nn.Conv2d(channels[-1], 3, 3, padding=1),
        )

    def forward(self, z_NZ: Tensor, y_NE: Tensor) -> Tensor:
        first, *rest = z_NZ.split(self.chunk, dim=1)
        h = self.linear(first).unflatten(1, (-1, 4, 4))
        for layers, chunk in zip(self.blocks, rest):
            condition = torch.cat([y_NE, chunk], dim=1)
            for layer in layers.children():
                h = layer(h, condition) if isinstance(layer, Block) else layer(h)
        return torch.tanh(self.output_layer(h))


def published_shapes(network: BigGanNetwork) -> dict[str, tuple[int, ...]]:
    """Key → shape of the published state dict.

    Beside its weight every convolution and linear layer has ``u0``, spectral normalisation's vector, and
    ``sv0``, a singular value logged in training; files converted from TF Hub come without ``sv0``.
    """
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            shapes[f"{name}.u0"] = (1, layer.weight.shape[0])
            shapes[f"{name}.sv0"] = (1,)
    return shapes


def load_published(network: BigGanNetwork, state: Mapping[str, Tensor], path: Path | str) -> None:
    """Fills the network from a published state dict, spectral norm folded into the weights.

    Raises WeightError naming the keys that are missing, not expected or of another shape.
    """
    state = dict(state)
    for key, value in state.items():
        if key.endswith(".gamma") and value.shape == (1,):  # torch's loading accepts this scalar, too
            state[key] = value.reshape(())
    expected = {
        key: shape
        for key, shape in published_shapes(network).items()
        if not key.endswith(".sv0") or key in state
    }
    check_state(state, expected, what="BigGAN", path=path)
    folded = {}
    for key in network.state_dict():
        u = state.get(f"{key.removesuffix('.weight')}.u0") if key.endswith(".weight") else None
        folded[key] = state[key] if u is None else fold_one_vector(state[key], u)
    network.load_state_dict(folded)
