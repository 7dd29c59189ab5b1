"""The LAION aesthetic score: a published head on a CLIP's image embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.assets.missing import Published
from bench.assets.state import check_state, read_state
from bench.auxiliaries.clip_files import ClipFiles
from bench.auxiliaries.open_clip import load_open_clip
from bench.conditioners.reward import RewardConditioner, shown
from bench.streams import Streams
from bench.types import Condition, ConditionKind

# Layers of the MLP head: five linear maps; dropout between them does nothing in evaluation, and there is no
# other nonlinearity in the published network.
MLP = {"layers.0": 1024, "layers.2": 128, "layers.4": 64, "layers.6": 16, "layers.7": 1}


@dataclass(frozen=True, kw_only=True)
class Aesthetic:
    """Energy -s(x), s the LAION aesthetic score (about 1 … 10) of the image; the condition is not read.

    ``weights`` is a published head: the linear ``sa_0_4_vit_l_14_linear.pth`` or
    ``sa_0_4_vit_b_32_linear.pth`` (LAION-AI/aesthetic-predictor), or the MLP
    ``sac+logos+ava1-l14-linearMSE.pth``
    (christophschuhmann/improved-aesthetic-predictor). ``clip`` is the CLIP that it was trained on, OpenAI's
    ViT-L/14 or ViT-B/32. Meant as a term of 'sum'.
    """

    clip: ClipFiles
    weights: str
    sha256: str | None = None
    any_condition: ClassVar[bool] = True
    makes_pairs: ClassVar[bool] = False

    @property
    def kind(self) -> ConditionKind:
        return "text"

    @property
    def assets(self) -> dict[str, Published | None]:
        """The head's file, with what is known of the public one."""
        return {
            "weights": Published(
                what="head of the LAION aesthetic score",
                source="https://github.com/christophschuhmann/improved-aesthetic-predictor (MLP) or "
                "https://github.com/LAION-AI/aesthetic-predictor (linear)",
                size="3.7 MB (MLP on ViT-L/14) or a few kB (linear)",
            )
        }

    def load(self, device: torch.device) -> AestheticConditioner:
        network = load_open_clip(self.clip, device)
        state = read_state(self.weights, published=self.assets["weights"], sha256=self.sha256)
        head = aesthetic_head(state, network.embed_dim, self.weights).to(device)
        return AestheticConditioner(network, head, device)


def aesthetic_head(state: Mapping[str, Tensor], dim: int, path: str) -> nn.Module:
    """The head of a state dict on embeddings (N, dim): frozen, float32, (N, 1).

    Raises WeightError naming keys that do not fit.
    """
    sizes = {"": 1} if "weight" in state else MLP
    expected: dict[str, tuple[int, ...]] = {}
    layers: list[nn.Module] = []
    before = dim
    for name, size in sizes.items():
        prefix = f"{name}." if name else ""
        expected |= {f"{prefix}weight": (size, before), f"{prefix}bias": (size,)}
        layers.append(nn.Linear(before, size))
        before = size
    check_state(state, expected, what=f"an aesthetic head on {dim} dimensions", path=path)
    values = [state[key].float() for key in expected]
    head = nn.Sequential(*layers)
    head.load_state_dict(dict(zip(head.state_dict(), values)))
    return head.eval().requires_grad_(False)


class AestheticConditioner(RewardConditioner):
    """The head on the unit-norm embedding of each image."""

    def __init__(self, network: Any, head: nn.Module, device: torch.device):
        self.network, self.head, self.device = network, head, device

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        return torch.zeros(len(conditions), 0, device=self.device)

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return images_NCHW.new_zeros(len(images_NCHW), 0)

    def reward(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        net = self.network
        x = shown(images_NCHW, net.image_size, net.image_mean, net.image_std)
        return self.head(F.normalize(net.encode_image(x).float(), dim=1))[:, 0]
