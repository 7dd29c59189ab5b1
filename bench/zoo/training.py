"""What all trainings of the zoo share: data, the contract of a recipe, averaged weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from bench.streams import Streams, hash64
from bench.worlds import shapes

NUM_SHAPES = 40_000
NUM_CAPTIONED = 40_000
NUM_COMBINATIONS = 8 * 8 * 2 * 5 * 4  # of the shapes world's attributes
CLASS_HEADS = 2  # BigGAN-style classes: the first two attributes (shape and color: 64) or the digit (10)


def make_shapes(split: str, num: int, device: torch.device, objects: int = 1) -> dict[str, Any]:
    """A rendered part of the world: images uint8 (N, 3, 32, 32), values int64 (N, A), captions."""
    streams = Streams.from_seed(num, 0, "shapes", objects, split, device=device)
    scenes = shapes.sample_scenes(streams, objects)
    rows = shapes.labels(scenes)
    return {
        "images": shapes.render(scenes),
        "values": scenes.values,
        "captions": shapes.captions(rows, streams),
    }


def make_digits(split: str, device: torch.device) -> dict[str, Any]:
    """The real digits of a split: images uint8 (N, 3, 32, 32) and values int64 (N, 1)."""
    from bench.worlds.digits import Digits

    images, labels = Digits().arrays(split)
    return {
        "images": torch.from_numpy(images).to(device),
        "values": torch.from_numpy(labels)[:, None].to(device),
    }


def world_heads(data: str) -> dict[str, tuple[str, ...]]:
    return shapes.attribute_values(1) if data == "shapes" else {"digit": tuple("0123456789")}


def make(data: str, split: str, device: torch.device) -> dict[str, Any]:
    if data == "digits":
        return make_digits("train" if split == "train" else "val", device)
    return make_shapes(split, NUM_SHAPES if split == "train" else 4000, device)


def to_unit(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 for convolutions and products where the device has units for it: several times as fast on
    recent CPUs and on GPUs. A CPU without them would emulate it, at a hundredth of the speed."""
    able = device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=able)


class Training(ABC):
    """Modules and optimisers of one run; ``step(t)`` trains once, ``export`` gives the network to ship."""

    architecture: str
    figures: dict[str, float]

    def __init__(self, seed: int, device: torch.device, total_steps: int):
        torch.manual_seed(hash64("zoo", seed) % 2**31)
        self.seed, self.device, self.total_steps = seed, device, total_steps
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def generator(self, t: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(hash64(self.seed, t) % 2**62)

    def cosine(self, t: int, warm_up: int = 200) -> float:
        """Learning-rate factor: linear warm-up, then cosine to zero."""
        if t < warm_up:
            return (t + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (t - warm_up) / max(1, self.total_steps - warm_up))))

    def set_lr(self, name: str, lr: float) -> None:
        for group in self.optimizers[name].param_groups:
            group["lr"] = lr

    @abstractmethod
    def step(self, t: int) -> dict[str, Tensor]: ...

    @abstractmethod
    def export(self) -> nn.Module: ...

    def evaluate(self) -> dict[str, float]:
        """Held-out figures for the card."""
        return {}


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float, t: int) -> None:
    """Exponential moving average of parameters; buffers are copied."""
    decay = min(decay, (1 + t) / (10 + t))
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)
    for own, other in zip(ema.buffers(), model.buffers()):
        own.copy_(other)
