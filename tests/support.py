"""What several tests share: a small suite on the digits world and a generator that fails on purpose."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from bench.errors import SuiteError
from bench.generators.base import Block, LatentSpace
from bench.streams import Streams

SMALL_SUITE: dict[str, Any] = {
    "name": "small",
    "seed": 5,
    "data": {"digits": {"kind": "digits"}},
    "generators": {"vae": {"kind": "vae", "model": "digits-vae"}},
    "conditioners": {"class": {"kind": "classifier", "model": "digits-classifier-guide", "heads": ["digit"]}},
    "translators": {
        "default": {
            "kind": "tr0n",
            "num_pairs": 256,
            "hidden": 32,
            "steps": 20,
            "batch_size": 32,
            "learning_rate": 0.003,
        }
    },
    "samplers": {
        "prior": {"kind": "prior"},
        "langevin": {"kind": "langevin", "steps": 3, "step_size": 0.3, "momentum": 0.5},
        "translator": {"kind": "translator"},
        "tr0n": {"kind": "tr0n", "steps": 3, "step_size": 0.3, "momentum": 0.5, "start": "sample"},
    },
    "judges": {"digits": {"kind": "classifier", "model": "digits-classifier-judge", "batch_size": 20}},
    "metrics": {
        "fid": {"kind": "fid", "judge": "digits", "allow_small_n": True},
        "accuracy": {"kind": "class-accuracy", "judge": "digits"},
        "speed": {"kind": "speed"},
    },
    "protocol": {"reference_split": "val", "num_reference": 200},
    "samples": {"num": 20, "batch_size": 32, "tile": 4},
    "curve": {"steps": [0, 3], "num": 20},
    "variants": {
        "matrix": {
            "data": "digits",
            "generator": "vae",
            "conditioner": "class",
            "sampler": ["prior", "langevin", "translator", "tr0n"],
        }
    },
}


class NanGenerator:
    """A generator whose images are NaN for latents with a positive first coordinate."""

    resolution = 32

    def load(self, device: torch.device):
        from bench.generators.vae import Vae

        inner = Vae(model="digits-vae").load(device)
        clean = inner.decode
        inner.decode = lambda z: torch.where(z[:, :1, None, None] > 0, torch.nan, clean(z))
        return inner


@dataclass(frozen=True, kw_only=True)
class Tinted:
    """A generator that sees the condition: a grey by class, a noise pattern of its own, and z.

    Images are (N, 3, 32, 32); ``needs_conditions`` False lets it make images of nothing, which are mid-grey.
    """

    needs_conditions: bool = True
    kinds: tuple[str, ...] = ("class",)

    resolution = 32

    def load(self, device: torch.device):
        return TintedGenerator(self)


class TintedGenerator:
    resolution = 32

    def __init__(self, config: Tinted):
        self.needs_conditions = config.needs_conditions
        self.notes = {"operators": "reference"}
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=3),), sample=lambda streams: streams.normal("prior:z", (3,))
        )

    def context(self, conditions, streams: Streams):
        if conditions is None and self.needs_conditions:
            raise SuiteError("this generator needs a condition.")
        digits = [4.5] * len(streams) if conditions is None else [int(c.labels["digit"]) for c in conditions]
        grey = torch.tensor(digits, device=streams.device) / 4.5 - 1
        return {"grey": grey, "noise": streams.uniform("tinted:noise", (32, 32), low=-0.1, high=0.1)}

    def decode(self, z_ND, context):
        colour = 0.5 * context["grey"][:, None] + 0.2 * torch.tanh(z_ND)
        return colour[:, :, None, None] + context["noise"][:, None]


class FinishedRun:
    """Two cells of the small suite, drawn and scored with an artifact store of their own."""

    def __init__(self, folder: Path):
        from bench.runner import run
        from bench.suite import load_suite

        self.path, self.out, self.url = folder / "small.yaml", folder / "run", str(folder / "store")
        matrix = {**SMALL_SUITE["variants"]["matrix"], "sampler": ["prior", "tr0n"]}
        content = {**SMALL_SUITE, "variants": {"matrix": matrix}}
        self.path.write_text(yaml.safe_dump(content, sort_keys=False))
        self.suite = load_suite(self.path)
        self.summary = run(self.suite, self.out, "cpu", store_url=self.url)

    def copy(self, folder: Path) -> tuple[Path, str]:
        """A copy to spoil: its run folder and its store's address."""
        shutil.copytree(self.out, folder / "run")
        shutil.copytree(self.url, folder / "store")
        return folder / "run", str(folder / "store")
