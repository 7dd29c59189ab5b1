"""LPIPS as features: their squared distance is the perceptual distance of two images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.assets.missing import Published
from bench.assets.state import check_state, read_state
from bench.errors import WeightError
from bench.judges.tiles import in_tiles, to_unit
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition, Readout

Backbone = Literal["alex", "vgg"]
_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


@dataclass(frozen=True, kw_only=True)
class LpipsJudge:
    """Features whose squared distance between two images is their LPIPS (version 0.1), for diversity.

    ``weights`` is torchvision's file of the backbone; the linear layers come with the package ``lpips``
    (extra ``lpips``). Each image passes through the network once, however many pairs are compared. Images
    are resized to ``side`` pixels first (antialiased bicubic; None: as they are): features grow with its
    square, 127 kB an image for AlexNet at 64 pixels and 2.5 MB at 256. Source: Zhang et al. 2018,
    arXiv:1801.03924.
    """

    net: Backbone = "alex"
    weights: str
    sha256: str | None = None
    side: Annotated[int, Field(ge=32)] | None = 64
    batch_size: int = 64

    gives: ClassVar[tuple[str, ...]] = ("features",)

    @property
    def assets(self) -> Mapping[str, Published | None]:
        name = _FILES[self.net]
        return {
            "weights": Published(
                what=f"torchvision's {'AlexNet' if self.net == 'alex' else 'VGG-16'} trained on ImageNet",
                source=f"https://download.pytorch.org/models/{name}",
            )
        }

    def load(self, device: torch.device) -> LpipsReader:
        ensure_torchvision()
        try:
            from lpips import LPIPS
        except ImportError as error:
            raise WeightError("the lpips judge needs lpips: pip install 'tr0n-bench[lpips]'.") from error
        state = read_state(self.weights, published=self.assets["weights"], sha256=self.sha256)
        network = LPIPS(net=self.net, pnet_rand=True, verbose=False)
        own = network.net.state_dict()
        # The package cuts torchvision's list of layers into slices and keeps their numbers.
        source = {key: f"features.{key.split('.', 1)[1]}" for key in own}
        found = {key: value for key, value in state.items() if key.startswith("features.")}
        shapes = {source[key]: value for key, value in own.items()}
        check_state(found, shapes, what=f"LPIPS backbone {self.net}", path=self.weights)
        network.net.load_state_dict({key: found[name] for key, name in source.items()})
        return LpipsReader(network.eval().requires_grad_(False).to(device), device, self)


class LpipsReader:
    """``network`` is the package's module."""

    def __init__(self, network: Any, device: torch.device, config: LpipsJudge):
        self.network, self.device, self.config = network, device, config

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        out = in_tiles(images_NCHW, self.config.batch_size, self.device, self._features)
        return Readout(features=out["features"], about={"extractor": f"LPIPS {self.config.net}"})

    def _features(self, batch: Tensor) -> dict[str, Tensor]:
        side = self.config.side
        x = to_unit(batch)
        if side is not None and x.shape[-2:] != (side, side):
            x = F.interpolate(x, (side, side), mode="bicubic", align_corners=False, antialias=True).clamp(
                -1, 1
            )
        parts = []
        for layer, linear in zip(self.network.net(self.network.scaling_layer(x)), self.network.lins):
            weight = linear.model[-1].weight.flatten()[:, None, None].clamp(min=0)
            unit = layer / (layer.square().sum(1, keepdim=True).sqrt() + 1e-10)
            parts.append((unit * (weight / layer[0, 0].numel()).sqrt()).flatten(1))
        return {"features": torch.cat(parts, dim=1)}
