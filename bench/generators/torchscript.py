"""A generator as a TorchScript archive: code and weights in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.assets.missing import Published, require_file
from bench.assets.pickles import load_torch_file
from bench.errors import WeightError
from bench.generators.latents import LatentBlock, StatedGenerator, Values, check_latent

PUBLISHED = Published(
    what="a TorchScript archive (torch.jit.save)", source="where your generator is published"
)


@dataclass(frozen=True, kw_only=True)
class TorchScript:
    """Any generator saved by torch.jit.save that maps latents (N, dim), or (N, *shape), to images.

    The archive is code: it needs ``trust: true`` and its ``sha256``. ``latent`` lists the blocks in the order
    of the coordinates; ``values`` is the range of the images, (N, 3 or 1, resolution, resolution).
    """

    weights: str
    latent: tuple[LatentBlock, ...]
    resolution: int
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
        path = require_file(Path(self.weights), PUBLISHED)
        network = load_torch_file(path, trust=self.trust, sha256=self.sha256)
        if not isinstance(network, torch.jit.ScriptModule):
            raise WeightError(
                f"weight file '{path}' is no TorchScript archive but a {type(network).__name__}. For a state "
                "dict use 'kind: module'."
            )
        network = network.to(device).eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        generator = StatedGenerator(
            network, self.latent, resolution=self.resolution, shape=self.shape, values=self.values
        )
        generator.try_out(f"'{path}'", device)
        return generator
