"""The TF-Inception of FID as judge, through torch-fidelity's extractor, fed as each public FID code does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.assets.missing import Published, require_file
from bench.errors import WeightError
from bench.judges.inception_input import OWN_SCALE, RESIZE, scaled
from bench.judges.tiles import in_tiles
from bench.protocols.base import ExtractorResize, ExtractorScale
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition, Readout
from bench.zoo.weights import file_sha256


@dataclass(frozen=True, kw_only=True)
class InceptionJudge:
    """2048-d pool features of the 2015-12-05 Inception weights.

    ``weights`` is the local file: torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``, which
    pytorch-fid publishes as ``pt_inception-2015-12-05-6726825d.pth``. ``resize`` brings images to 299
    pixels as that code does: "clean" (clean-fid: Pillow's antialiased bicubic on floats), "torch-fidelity"
    (TensorFlow 1's bilinear), "pytorch-fid" (bilinear at half-pixel centres, no antialiasing), "t2ibenchmark"
    (Pillow's bicubic, rounded to bytes). ``scale`` "tensorflow" is (x - 128) / 128, "symmetric" is
    x / 127.5 - 1; left out, that of the same code. A protocol that names an extractor settles both.

    The 1,008-way logits are those without the last layer's bias, as the Inception Score of torch-fidelity and
    of the original code takes them; "biased" adds it.
    """

    weights: str
    sha256: str | None = None
    resize: ExtractorResize = "clean"
    batch_size: int = 32
    scale: ExtractorScale | None = None
    logits: Literal["unbiased", "biased"] = "unbiased"

    version: ClassVar[int] = 2  # 2: logits
    protocol_fields: ClassVar[dict[str, str]] = {"resize": "extractor_resize", "scale": "extractor_scale"}
    later_fields: ClassVar[tuple[str, ...]] = ("scale", "logits")
    extractor: ClassVar[str] = "inception-2015-12-05"
    gives: ClassVar[tuple[str, ...]] = ("features", "logits")

    @property
    def assets(self) -> dict[str, Published]:
        return {"weights": Published.locked("torch-fidelity-inception")}

    def load(self, device: torch.device) -> InceptionReader:
        path = require_file(self.weights, self.assets["weights"])
        if self.sha256 is not None and (found := file_sha256(path)) != self.sha256:
            raise WeightError(
                f"Inception weights '{path}': sha256 is {found}, expected {self.sha256}. Restore the file or "
                "correct the expected hash."
            )
        try:
            # torch-fidelity reads the file as a full pickle: only one that needs no code is let through.
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise WeightError(
                f"Inception weights '{path}' are not a plain state dict: {str(error).splitlines()[0]} "
                "Use the published file."
            ) from error
        ensure_torchvision()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        extractor = FeatureExtractorInceptionV3(
            "inception-v3-compat",
            ["2048"],
            feature_extractor_weights_path=str(path),
            verbose=False,
        )
        scale = self.scale or OWN_SCALE.get(self.resize, "tensorflow")
        extractor = extractor.eval().to(device)
        return InceptionReader(extractor, device, self.resize, scale, self.batch_size, self.logits)


class InceptionReader:
    """``extractor`` is torch-fidelity's module, whose layers are used."""

    def __init__(
        self,
        extractor: Any,
        device: torch.device,
        resize: str,
        scale: str,
        batch_size: int,
        logits: str = "unbiased",
    ):
        self.extractor, self.device, self.batch_size = extractor, device, batch_size
        self.with_bias = logits == "biased"
        self.resize, self.scale = RESIZE[resize], scale

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        def read(batch: Tensor) -> dict[str, Tensor]:
            features = self._pooled(scaled(self.resize(batch), self.scale))
            layer = self.extractor.fc
            logits = F.linear(features, layer.weight, layer.bias if self.with_bias else None)
            return {"features": features, "logits": logits}

        out = in_tiles(images_NCHW, self.batch_size, self.device, read)
        return Readout(features=out["features"], logits={"inception": out["logits"]})

    def _pooled(self, x: Tensor) -> Tensor:
        """Features of float images (N, 3, 299, 299) already scaled to about [-1, 1]."""
        net = self.extractor
        for name in _STEM:
            x = getattr(net, name)(x)
        return net.AvgPool(x).flatten(1)


_STEM = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3",
    "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d",
    "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c",
)  # fmt: skip
