"""BigGAN files in the published formats, with random content: every key and shape written out here."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Y = 128
# side → (channels in units of the width, size of z's chunks, index of the block with attention)
BROCK = {
    128: ((16, 16, 8, 4, 2, 1), 20, 3),
    256: ((16, 16, 8, 8, 4, 2, 1), 20, 4),
    512: ((16, 16, 8, 8, 4, 2, 1, 1), 16, 3),
}


def _layer(name: str, weight: tuple[int, ...], bias: bool) -> Shapes:
    shapes: Shapes = {f"{name}.weight": weight, f"{name}.u0": (1, weight[0]), f"{name}.sv0": (1,)}
    return shapes | ({f"{name}.bias": (weight[0],)} if bias else {})


def brock_shapes(resolution: int, width: int, num_classes: int) -> Shapes:
    """Keys of a Generator of ajbrock/BigGAN-PyTorch with G_shared, hier and its own batch norm layers."""
    widths, chunk, attention = BROCK[resolution]
    channels = [width * k for k in widths]
    shapes: Shapes = {"shared.weight": (num_classes, Y)}
    shapes |= _layer("linear", (channels[0] * 16, chunk), bias=True)
    for i, (a, b) in enumerate(pairwise(channels)):
        block = f"blocks.{i}.0"
        shapes |= _layer(f"{block}.conv1", (b, a, 3, 3), bias=True)
        shapes |= _layer(f"{block}.conv2", (b, b, 3, 3), bias=True)
        shapes |= _layer(f"{block}.conv_sc", (b, a, 1, 1), bias=True)
        for norm, size in (("bn1", a), ("bn2", b)):
            for part in ("gain", "bias"):
                shapes |= _layer(f"{block}.{norm}.{part}", (size, Y + chunk), bias=False)
            shapes |= {f"{block}.{norm}.stored_{part}": (size,) for part in ("mean", "var")}
        if i == attention:
            for part, (out, into) in {
                "theta": (b // 8, b), "phi": (b // 8, b), "g": (b // 2, b), "o": (b, b // 2),
            }.items():  # fmt: skip
                shapes |= _layer(f"blocks.{i}.1.{part}", (out, into, 1, 1), bias=False)
            shapes[f"blocks.{i}.1.gamma"] = ()
    last = channels[-1]
    shapes |= {f"output_layer.0.{part}": (last,) for part in ("gain", "bias", "stored_mean", "stored_var")}
    return shapes | _layer("output_layer.2", (3, last, 3, 3), bias=True)


def _spectral(name: str, weight: tuple[int, ...], bias: bool) -> Shapes:
    inputs = 1
    for size in weight[1:]:
        inputs *= size
    shapes: Shapes = {
        f"{name}.weight_orig": weight, f"{name}.weight_u": (weight[0],), f"{name}.weight_v": (inputs,)
    }  # fmt: skip
    return shapes | ({f"{name}.bias": (weight[0],)} if bias else {})


def deep_shapes(config: dict) -> Shapes:
    """Keys of a BigGAN of huggingface/pytorch-pretrained-BigGAN with this config.json."""
    z, width, stats = config["z_dim"], config["channel_width"], config["n_stats"]
    shapes: Shapes = {"embeddings.weight": (z, config["num_classes"])}
    shapes |= _spectral("generator.gen_z", (16 * 16 * width, 2 * z), bias=True)
    position = 0
    for i, (_, before, after) in enumerate(config["layers"]):
        a, b = width * before, width * after
        if i == config["attention_layer_position"]:
            name = f"generator.layers.{position}"
            for part, (out, into) in {
                "theta": (a // 8, a), "phi": (a // 8, a), "g": (a // 2, a), "o_conv": (a, a // 2),
            }.items():  # fmt: skip
                shapes |= _spectral(f"{name}.snconv1x1_{part}", (out, into, 1, 1), bias=False)
            shapes[f"{name}.gamma"] = (1,)
            position += 1
        name, m = f"generator.layers.{position}", a // 4
        for k, (out, into, side) in enumerate([(m, a, 1), (m, m, 3), (m, m, 3), (b, m, 1)]):
            shapes |= _spectral(f"{name}.conv_{k}", (out, into, side, side), bias=True)
            shapes |= {f"{name}.bn_{k}.running_{part}": (stats, into) for part in ("means", "vars")}
            for part in ("scale", "offset"):
                shapes |= _spectral(f"{name}.bn_{k}.{part}", (into, 2 * z), bias=False)
        position += 1
    shapes |= {f"generator.bn.running_{part}": (stats, width) for part in ("means", "vars")}
    shapes |= {f"generator.bn.{part}": (width,) for part in ("weight", "bias")}
    return shapes | _spectral("generator.conv_to_rgb", (width, width, 3, 3), bias=True)


SMALL_DEEP = {
    "output_dim": 128,
    "z_dim": 128,
    "class_embed_dim": 128,
    "channel_width": 8,
    "num_classes": 7,
    "layers": [
        [False, 16, 16], [True, 16, 16], [False, 16, 16], [True, 16, 8], [False, 8, 8],
        [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1],
    ],
    "attention_layer_position": 8,
    "eps": 1e-4,
    "n_stats": 51,
}  # fmt: skip


def random_state(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Content that keeps activations near one and no layer neutral."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        value = torch.randn(shape, generator=g)
        if key.endswith("gamma"):
            value = torch.full(shape, 0.7)
        elif "var" in key:
            value = 0.5 + torch.rand(shape, generator=g)
        elif len(shape) > 1 and not key.endswith("u0") and "running" not in key:
            value = value / (value[0].numel() ** 0.5)
        elif "mean" in key or key.endswith("bias"):
            value = 0.3 * value
        state[key] = value
    return state


def brock_file(folder: Path, resolution: int = 128, width: int = 4, num_classes: int = 7) -> Path:
    path = folder / f"biggan-{resolution}.pth"
    torch.save(random_state(brock_shapes(resolution, width, num_classes)), path)
    return path


def deep_files(folder: Path, config: dict = SMALL_DEEP) -> tuple[Path, Path]:
    """pytorch_model.bin and config.json."""
    weights, about = folder / "pytorch_model.bin", folder / "config.json"
    torch.save(random_state(deep_shapes(config)), weights)
    about.write_text(json.dumps(config, indent=2))
    return weights, about
