"""The TF-Inception of FID as judge, through torch-fidelity's extractor and clean-fid's resize."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.errors import WeightError
from bench.judges.tiles import in_tiles
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition, Readout
from bench.zoo.weights import file_sha256

SIDE = 299


@dataclass(frozen=True, kw_only=True)
class InceptionJudge:
    """2048-d pool features of the 2015-12-05 Inception weights in torch-fidelity's file format.

    ``weights`` is the local file ``weights-inception-2015-12-05-6726825d.pth``. ``resize`` "clean" is
    clean-fid's antialiased Pillow bicubic on floats; "torch-fidelity" is its TF1-style bilinear.
    """

    weights: str
    sha256: str | None = None
    resize: Literal["clean", "torch-fidelity"] = "clean"
    batch_size: int = 32

    def load(self, device: torch.device) -> InceptionReader:
        path = Path(self.weights)
        if not path.is_file():
            raise WeightError(
                f"Inception weights '{path}' are missing. Expected torch-fidelity's file "
                "weights-inception-2015-12-05-6726825d.pth; the public gets it from the releases of the "
                "GitHub repository toshas/torch-fidelity (v0.2.0)."
            )
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
        return InceptionReader(extractor.eval().to(device), device, self.resize, self.batch_size)


class InceptionReader:
    """``extractor`` is torch-fidelity's module; it resizes uint8 images that are not 299 pixels wide."""

    def __init__(self, extractor: Any, device: torch.device, resize: str, batch_size: int):
        self.extractor, self.device, self.resize, self.batch_size = extractor, device, resize, batch_size

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        def read(batch: Tensor) -> dict[str, Tensor]:
            if self.resize == "torch-fidelity":
                return {"features": self.extractor(batch)[0]}
            return {"features": self._pooled((clean_resize(batch, SIDE) - 128) / 128)}

        return Readout(features=in_tiles(images_NCHW, self.batch_size, self.device, read)["features"])

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


def clean_resize(batch: Tensor, side: int) -> Tensor:
    """Float (N, 3, side, side) in about [0, 255] from uint8, by clean-fid's own "clean" resizer.

    Each channel is resized by Pillow's antialiased bicubic as a float image and not rounded again.
    Source: Parmar et al. 2022, arXiv:2104.11222.
    """
    ensure_torchvision()
    from cleanfid.resize import make_resizer

    resizer = make_resizer("PIL", False, "bicubic", (side, side))
    images = batch.permute(0, 2, 3, 1).cpu().numpy()
    resized = np.stack([resizer(image) for image in images])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).float().to(batch.device)
