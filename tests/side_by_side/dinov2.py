"""Our DINOv2 judge beside the official network: same random weights, features of the same images.

    PYTHONPATH=. python tests/side_by_side/dinov2.py --repo CHECKOUT [--model vits14 vitb14 vitg14-small]

CHECKOUT is facebookresearch/dinov2 (b8931f7). The official network is built as its hub builds it, its weights
are drawn at random, and its state dict is loaded with ours. Exit code 1 where features differ by more than
1e-5 of the largest. "vitg14-small" is the giant's layout (SwiGLU) at a width of 96.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from bench.judges.dinov2 import MEAN, STD, TIMM, dinov2

TOLERANCE = 1e-5
# Official constructor, its arguments, and the options that make timm's network the same.
MODELS = {
    "vits14": ("vit_small", {}, TIMM["vits14"], {}),
    "vitb14": ("vit_base", {}, TIMM["vitb14"], {}),
    "vitl14": ("vit_large", {}, TIMM["vitl14"], {}),
    "vitg14-small": (
        "DinoVisionTransformer",
        {"embed_dim": 96, "depth": 3, "num_heads": 4, "mlp_ratio": 4, "ffn_layer": "swiglufused"},
        TIMM["vitg14"],
        {"embed_dim": 96, "depth": 3, "num_heads": 4},
    ),
}


def difference(name: str) -> float:
    """Largest difference of features, relative to the largest feature."""
    from dinov2.models import vision_transformer as official

    maker, arguments, timm_name, options = MODELS[name]
    common = {"img_size": 518, "patch_size": 14, "init_values": 1.0, "block_chunks": 0}
    theirs = getattr(official, maker)(
        **common, interpolate_antialias=False, interpolate_offset=0.1, **arguments
    ).eval()
    draws = torch.Generator().manual_seed(0)
    state = theirs.state_dict()
    for key, value in state.items():
        fan_in = value[0].numel() if value.ndim > 1 else 1
        noise = torch.randn(value.shape, generator=draws)
        state[key] = noise / fan_in**0.5 if value.ndim > 1 else 1 + 0.1 * noise
    theirs.load_state_dict(state)
    ours = dinov2(timm_name, state, name, **options)
    images = torch.rand(2, 3, 224, 224, generator=draws)
    x = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        a, b = ours(x), theirs(x)
    return float((a - b).abs().max() / b.abs().max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--model", nargs="+", default=["vits14", "vitg14-small"], choices=list(MODELS))
    chosen = parser.parse_args()
    os.environ["XFORMERS_DISABLED"] = "1"
    sys.path.insert(0, str(chosen.repo))
    found = {name: difference(name) for name in chosen.model}
    for name, value in found.items():
        print(f"{name:14s} relative difference {value:.1e}")
    return int(any(value > TOLERANCE for value in found.values()))


if __name__ == "__main__":
    sys.exit(main())
