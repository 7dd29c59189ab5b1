"""A generator as an nn.Module of any importable package, its weights in a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.assets.missing import Published
from bench.assets.state import check_state, read_state
from bench.components import resolve_path
from bench.errors import SuiteError
from bench.generators.latents import LatentBlock, StatedGenerator, Values, check_latent

PUBLISHED = Published(what="a state dict (.safetensors, .pt)", source="where your generator is published")


@dataclass(frozen=True, kw_only=True)
class Module:
    """Any nn.Module that maps latents (N, dim), or (N, *shape), to images.

    ``target`` is ``package.module:Class``, called with ``args``; ``weights`` is its state dict, every key of
    which must fit. ``prefix`` is taken off the keys ("module.", "generator."); others are left out then.
    ``latent`` lists the blocks in the order of the coordinates; ``values`` is the range of the images,
    (N, 3 or 1, resolution, resolution).
    """

    target: str
    weights: str
    latent: tuple[LatentBlock, ...]
    resolution: int
    args: dict[str, Any] = field(default_factory=dict, hash=False)
    prefix: str = ""
    sha256: str | None = None
    trust: bool = False
    shape: tuple[int, ...] | None = None
    values: Values = "[-1, 1]"

    def __post_init__(self) -> None:
        check_latent(self.latent)

    @property
    def assets(self) -> Mapping[str, Published]:
        return {"weights": PUBLISHED}

    def load(self, device: torch.device) -> StatedGenerator:
        state = read_state(self.weights, published=PUBLISHED, sha256=self.sha256, trust=self.trust)
        if self.prefix:
            cut = len(self.prefix)
            state = {key[cut:]: value for key, value in state.items() if key.startswith(self.prefix)}
        try:
            network = resolve_path(self.target)(**self.args)
        except TypeError as error:
            raise SuiteError(f"args: '{self.target}' does not take these arguments: {error}.") from error
        if not isinstance(network, torch.nn.Module):
            raise SuiteError(f"target: '{self.target}' gives a {type(network).__name__}, no torch.nn.Module.")
        check_state(state, network.state_dict(), what=f"'{self.target}'", path=self.weights)
        network.load_state_dict(state)
        network = network.to(device).eval().requires_grad_(False)
        generator = StatedGenerator(
            network, self.latent, resolution=self.resolution, shape=self.shape, values=self.values
        )
        generator.try_out(f"'{self.target}'", device)
        return generator
