"""Generators that fail on purpose, at the word of files in ``folder``: its path is all that is in a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.generators.vae import Vae, VaeGenerator

Decode = Callable[[Tensor], Tensor]


def _changed(device: torch.device, change: Callable[[Tensor, Decode], Tensor]) -> VaeGenerator:
    """The digits VAE whose ``decode`` is ``change(z, clean decode)``."""
    generator = Vae().load(device)
    clean = generator.decode
    generator.decode = lambda z: change(z, clean)  # type: ignore[method-assign]
    return generator


@dataclass(frozen=True, kw_only=True)
class Stalling:
    """Where ``folder`` holds "stall", with a number: after as many calls, writes "reached" there and waits
    for the end. Where it holds "deaf" as well: told to end, writes "told" and waits on."""

    folder: str
    resolution: int = 32

    def load(self, device: torch.device) -> VaeGenerator:
        folder, calls = Path(self.folder), [0]

        def decode(z: Tensor, clean: Decode) -> Tensor:
            calls[0] += 1
            if (folder / "stall").exists() and calls[0] > int((folder / "stall").read_text()):
                try:
                    (folder / "reached").touch()
                    time.sleep(600)
                finally:
                    if (folder / "deaf").exists():
                        (folder / "told").touch()
                        time.sleep(600)
            return clean(z)

        return _changed(device, decode)


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Asks for 2 GiB of scratch in every call."""

    resolution: int = 32

    def load(self, device: torch.device) -> VaeGenerator:
        def decode(z: Tensor, clean: Decode) -> Tensor:
            scratch = np.empty(2 << 30, np.uint8)  # untouched, so that it takes address space alone
            return clean(z) if len(scratch) else z

        return _changed(device, decode)


@dataclass(frozen=True, kw_only=True)
class SmallDevice:
    """A device that holds as many rows at once as the file "rows" in ``folder`` says; else any number.

    Every refusal is a line of the file "refused".
    """

    folder: str
    resolution: int = 32

    def load(self, device: torch.device) -> VaeGenerator:
        folder = Path(self.folder)

        def decode(z: Tensor, clean: Decode) -> Tensor:
            rows = folder / "rows"
            if rows.exists() and len(z) > int(rows.read_text()):
                with (folder / "refused").open("a") as file:
                    print(len(z), file=file)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is.")
            return clean(z)

        return _changed(device, decode)


@dataclass(frozen=True, kw_only=True)
class PartlyNan:
    """Images are NaN for latents whose first coordinate is above ``above``."""

    above: float
    resolution: int = 32

    def load(self, device: torch.device) -> VaeGenerator:
        def decode(z: Tensor, clean: Decode) -> Tensor:
            return torch.where(z[:, :1, None, None] > self.above, torch.nan, clean(z))

        return _changed(device, decode)
