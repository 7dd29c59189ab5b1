"""DINOv2 as judge: the features of FD-DINOv2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bench.assets.missing import Published
from bench.assets.state import check_state, read_state
from bench.judges.tiles import in_tiles
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition, Readout

SIDE, PATCH = 224, 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Model = Literal["vits14", "vitb14", "vitl14", "vitg14"]
TIMM = {
    "vits14": "vit_small_patch14_dinov2",
    "vitb14": "vit_base_patch14_dinov2",
    "vitl14": "vit_large_patch14_dinov2",
    "vitg14": "vit_giant_patch14_dinov2",
}
TITLES = {"vits14": "ViT-S/14", "vitb14": "ViT-B/14", "vitl14": "ViT-L/14", "vitg14": "ViT-g/14"}


@dataclass(frozen=True, kw_only=True)
class DinoV2Judge:
    """The class token of DINOv2 after its last normalisation, for FD-DINOv2 and its kin.

    ``weights`` is the official file, ``dinov2_vitl14_pretrain.pth`` for the default model, which has 1,024
    features and is the published convention of FD-DINOv2. Images are resized straight to 224 pixels by
    Pillow's bicubic and normalised with ImageNet's constants. Source: Oquab et al. 2023, arXiv:2304.07193;
    Stein et al. 2023, arXiv:2306.04675 (layer6ai-labs/dgm-eval).
    """

    model: Model = "vitl14"
    weights: str
    sha256: str | None = None
    batch_size: int = 32

    gives: ClassVar[tuple[str, ...]] = ("features",)

    @property
    def lineage(self) -> tuple[str, str]:
        return f"DINOv2 {TITLES[self.model]}", "LVD-142M"

    @property
    def assets(self) -> Mapping[str, Published | None]:
        name = f"dinov2_{self.model}"
        return {
            "weights": Published(
                what=f"DINOv2 {TITLES[self.model]} backbone without registers",
                source=f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth",
            )
        }

    def load(self, device: torch.device) -> DinoV2Reader:
        state = read_state(self.weights, published=self.assets["weights"], sha256=self.sha256)
        network = dinov2(TIMM[self.model], state, self.weights)
        return DinoV2Reader(network.to(device), device, self.batch_size, f"DINOv2 {TITLES[self.model]}")


def dinov2(name: str, state: Mapping[str, Tensor], path: str, **changes: Any) -> torch.nn.Module:
    """timm's network ``name`` for images of 224 pixels with an official state dict: frozen, float32, CPU.

    Positions are interpolated from the 37 x 37 of training to 16 x 16 as the official code does, by the
    factor 16.1 / 37; timm's own resampling gives others. ``changes`` are options of timm's network. Raises
    WeightError where keys are missing, unexpected or of another shape.
    """
    ensure_torchvision()
    import timm

    network = timm.create_model(name, pretrained=False, img_size=SIDE, num_classes=0, **changes)
    renamed = {
        key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): value.float()
        for key, value in state.items()
        if key != "mask_token"
    }
    if "pos_embed" in renamed and renamed["pos_embed"].ndim == 3:
        renamed["pos_embed"] = official_positions(renamed["pos_embed"], SIDE // PATCH)
    check_state(renamed, network.state_dict(), what=f"DINOv2 {name}", path=path)
    network.load_state_dict(renamed)
    return network.eval().requires_grad_(False)


def official_positions(positions_1LD: Tensor, side: int) -> Tensor:
    """(1, 1 + side², D) of (1, 1 + M², D) float32: the class token's as it is, those of patches bicubic."""
    old = round((positions_1LD.shape[1] - 1) ** 0.5)
    if old == side or old * old != positions_1LD.shape[1] - 1:
        return positions_1LD
    first, grid = positions_1LD[:, :1], positions_1LD[:, 1:]
    factor = (side + 0.1) / old
    grid = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([first, grid.permute(0, 2, 3, 1).reshape(1, side * side, -1)], dim=1)


class DinoV2Reader:
    """``network`` maps normalised images (N, 3, 224, 224) to features (N, F)."""

    def __init__(self, network: torch.nn.Module, device: torch.device, batch_size: int, extractor: str):
        self.network, self.device, self.batch_size = network, device, batch_size
        self.extractor = extractor
        self.mean = torch.tensor(MEAN, device=device)[:, None, None]
        self.std = torch.tensor(STD, device=device)[:, None, None]

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        def read(batch: Tensor) -> dict[str, Tensor]:
            x = pillow_bicubic(batch, SIDE).to(self.device).float() / 255
            return {"features": self.network((x - self.mean) / self.std)}

        out = in_tiles(images_NCHW, self.batch_size, self.device, read)
        return Readout(features=out["features"], about={"extractor": self.extractor})


def pillow_bicubic(batch_NCHW: Tensor, side: int) -> Tensor:
    """uint8 (N, 3, side, side) on the CPU, by Pillow's antialiased bicubic on 8-bit images."""
    rows = np.ascontiguousarray(batch_NCHW.permute(0, 2, 3, 1).cpu().numpy())
    small = [np.asarray(Image.fromarray(row).resize((side, side), Image.Resampling.BICUBIC)) for row in rows]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)
