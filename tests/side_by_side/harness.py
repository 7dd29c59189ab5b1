"""What comparisons with public code share: random networks saved in the published formats, and stand-ins.

Public checkouts are imported as they are. What of their dependencies is absent and takes no part (the
``clip`` package's loader, ``h5py`` for training data, ``lpips``) is replaced by a stand-in.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.assets.state import read_state
from bench.conditioners.clip import ClipConditioner
from bench.conditioners.open_clip import OpenClipText
from bench.generators.biggan.brock import BigGan, BigGanGenerator
from bench.generators.biggan.network import BigGanNetwork, load_published
from bench.torchvision_guard import ensure_torchvision

ATTENTION = {128: "64", 256: "128", 512: "64"}
Z_DIM = {128: 120, 256: 140, 512: 128}
RECIPE = "laion2b_s34b_b79k"  # mean, deviation and activation of the random CLIP


def stand_in(name: str, **members: Any) -> types.ModuleType:
    """A module of that name with only these members, imported from now on."""
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module
    return module


def randomise(network: nn.Module, seed: int) -> None:
    """Weights that keep a BigGAN's activations near one; statistics and gains away from neutral values."""
    g = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if not value.is_floating_point() or name.endswith(("sv0", "weight_v")):
            continue
        if "var" in name:
            value.copy_(0.5 + torch.rand(value.shape, generator=g))
        elif name.endswith("gamma"):
            value.fill_(0.7)
        elif value.ndim > 1 and not name.endswith(("u0", "weight_u")):
            value.copy_(torch.randn(value.shape, generator=g) / value[0].numel() ** 0.5)
        else:
            value.copy_(torch.randn(value.shape, generator=g) * 0.3)


def public_biggan(module: Any, resolution: int, width: int, seed: int) -> nn.Module:
    """The Generator of a ``BigGAN`` module (ajbrock's or a copy of it) as TR0N and FuseDream build it.

    ``module`` is the imported BigGAN.py. BN_eps and SN_eps are the defaults of its argument parser.
    """
    network = module.Generator(
        G_ch=width, resolution=resolution, n_classes=1000, G_shared=True, shared_dim=128, hier=True,
        G_attn=ATTENTION[resolution], dim_z=Z_DIM[resolution], BN_eps=1e-5, SN_eps=1e-8,
        G_activation=nn.ReLU(inplace=True), skip_init=True, no_optim=True,
    ).eval()  # fmt: skip
    randomise(network, seed)
    return network.requires_grad_(False)


def our_biggan(
    public: nn.Module, folder: Path, resolution: int, width: int, dtype: torch.dtype = torch.float32
) -> BigGanGenerator:
    """Our generator, on the CPU, from the state dict that ``public`` saves."""
    path = folder / f"biggan-{resolution}.pth"
    torch.save(public.state_dict(), path)
    config = BigGan(weights=str(path), resolution=resolution, width=width)
    if dtype == torch.float32:
        return config.load(torch.device("cpu"))
    network = BigGanNetwork(resolution, width=width, num_classes=1000, bn_eps=config.bn_eps).to(dtype)
    load_published(network, read_state(path), path)
    return BigGanGenerator(config, network.eval().requires_grad_(False))


def public_clip(seed: int, model: str = "ViT-B-32") -> nn.Module:
    """open_clip's own model with the weights of its initialisation."""
    ensure_torchvision()
    import open_clip

    torch.manual_seed(seed)
    return open_clip.create_model(model, pretrained=None).eval().requires_grad_(False)


def our_clip(
    public: nn.Module,
    folder: Path,
    *,
    views: int,
    model: str = "ViT-B-32",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ClipConditioner:
    """Our conditioner from the state dict that ``public`` saves."""
    path = folder / "clip.pt"
    torch.save(public.state_dict(), path)
    config = OpenClipText(weights=str(path), model=model, pretrained=RECIPE, views=views)
    conditioner = config.load(torch.device(device))
    conditioner.network.to(dtype)
    return conditioner


@contextmanager
def float_means(dtype: torch.dtype) -> Iterator[None]:
    """Within it ``Tensor.float()`` gives this type: public code that casts to float32 can run in float64."""
    plain = Tensor.float
    Tensor.float = lambda self: self.to(dtype)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.float = plain  # type: ignore[method-assign]


class OpenAiClip(nn.Module):
    """An open_clip model behind the interface of the ``clip`` package, which FuseDream calls.

    ``model(image, text)`` gives logits per image and per text; ``logit_scale`` is their common factor.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.visual, self.logit_scale = model.visual, model.logit_scale

    def encode_image(self, images_NCHW: Tensor) -> Tensor:
        return self.model.encode_image(images_NCHW)

    def encode_text(self, tokens_NL: Tensor) -> Tensor:
        return self.model.encode_text(tokens_NL)

    def forward(self, images_NCHW: Tensor, tokens_NL: Tensor) -> tuple[Tensor, Tensor]:
        image, text = self.encode_image(images_NCHW), self.encode_text(tokens_NL)
        image, text = image / image.norm(dim=1, keepdim=True), text / text.norm(dim=1, keepdim=True)
        per_image = self.logit_scale.exp() * image @ text.T
        return per_image, per_image.T


def clip_package(model: nn.Module) -> types.ModuleType:
    """A stand-in for the ``clip`` package: ``load`` gives this model, ``tokenize`` is open_clip's."""
    import open_clip

    return stand_in(
        "clip",
        load=lambda name, device="cpu", **_: (OpenAiClip(model).to(device), None),
        tokenize=lambda texts, truncate=False, **_: open_clip.tokenize(texts),
    )
