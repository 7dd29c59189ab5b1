"""Generators that workers of a cluster import, each with a fault of its own."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.errors import ArtifactError
from bench.generators.vae import Vae


class Obstinate(Exception):
    """Cannot be pickled: made from two things, of which only the message is kept."""

    def __init__(self, what: str, why: str):
        super().__init__(f"{what} {why}")


@dataclass(frozen=True, kw_only=True)
class Deadly:
    """Kills its process, as the kernel does where memory runs out."""

    resolution: int = 32

    def load(self, device: torch.device):
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Raises an exception that cannot be sent."""

    resolution: int = 32

    def load(self, device: torch.device):
        raise Obstinate("no", "reason")


@dataclass(frozen=True, kw_only=True)
class Unstored:
    """Meets a fault of the artifact store."""

    resolution: int = 32

    def load(self, device: torch.device):
        raise ArtifactError("the disk is full")


@dataclass(frozen=True, kw_only=True)
class Slow:
    """The digits VAE, which says when it starts and takes its time: ``folder`` holds a file by then."""

    folder: str
    seconds: float = 600.0
    resolution: int = 32

    def load(self, device: torch.device):
        Path(self.folder, "reached").touch()
        time.sleep(self.seconds)
        return Vae(model="digits-vae").load(device)
