"""StyleGAN2(-ADA), StyleGAN3 and StyleGAN-XL from the official pickles and a checkout of their repository.

N samples, D coordinates of the latent (w or z), L layers that each take a w, K classes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.assets.missing import Published, require_file
from bench.assets.pickles import load_pickle
from bench.assets.state import check_state
from bench.errors import SuiteError, WeightError, nearest
from bench.generators.base import Block, Context, LatentSpace
from bench.generators.checkout.imports import Checkout
from bench.generators.checkout.ops import settle_ops
from bench.streams import Streams
from bench.types import Condition

SOURCES = (
    "https://github.com/NVlabs/stylegan2-ada-pytorch, https://github.com/NVlabs/stylegan3 or "
    "https://github.com/autonomousvision/stylegan-xl, whichever the weights come from"
)
WEIGHTS = Published(
    what="an official StyleGAN pickle (stylegan2-ada-pytorch, stylegan3, stylegan-xl)",
    source="the README of the repository",
    size="about 130 to 380 MB",
)
REPO = Published(what="a checkout of an official StyleGAN repository", source=SOURCES, code=True)
NEEDS = ("dnnlib/__init__.py", "torch_utils/persistence.py")


@dataclass(frozen=True, kw_only=True)
class StyleGan:
    """StyleGAN2-ADA, StyleGAN3 or StyleGAN-XL: one w for all layers, no bounds.

    ``repo`` is the checkout whose code the pickle ``weights`` needs; being code it needs ``trust: true`` and
    its ``sha256``. The prior draws z ~ N(0, I) and a uniform class (for pair i class i mod K where
    ``y_prior`` is "categorical_fixed", as TR0N does), and pulls w to the mean w of all images (of the class,
    where the network has one each) by ``truncation`` psi; 1 leaves it, as TR0N does. With
    ``latent: z`` the mapping network is part of G, and a class-conditional G takes the condition's class:
    ``classes`` names the values of the attribute ``head`` in the network's order. ``noise`` is the networks'
    constant per-pixel noise, one draw for each sample ("sample"), or none. ``float32`` turns half precision
    off, which is off on CPUs anyhow.
    """

    weights: str
    repo: str
    resolution: int
    sha256: str | None = None
    trust: bool = False
    latent: Literal["w", "z"] = "w"
    truncation: float = 1.0
    y_prior: Literal["categorical_fixed", "categorical"] = "categorical_fixed"
    noise: Literal["const", "sample", "none"] = "const"
    float32: bool = False
    head: str | None = None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.truncation <= 2:
            raise SuiteError(f"truncation must be in [0, 2], got {self.truncation}.")
        if (self.head is None) != (self.classes is None):
            raise SuiteError("head and classes go together: the attribute, and its values in order.")
        if self.head is not None and self.latent != "z":
            raise SuiteError("head: a class is taken with 'latent: z' only; a w holds its class already.")

    @property
    def assets(self) -> Mapping[str, Published]:
        return {"weights": WEIGHTS, "repo": REPO}

    @property
    def needs_conditions(self) -> bool:
        return self.head is not None

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("class",) if self.needs_conditions else ("class", "text")

    def load(self, device: torch.device) -> StyleGanGenerator:
        path = require_file(self.weights, WEIGHTS)
        checkout = Checkout.at(self.repo, source=SOURCES, needs=NEEDS)
        # The repositories print what they compile; standard output belongs to the command.
        with contextlib.redirect_stdout(sys.stderr), checkout.active():
            notes = settle_ops(checkout, device.type)
            content = _read(path, self)
            network = _checked(content, path, self)
            network = network.to(device).eval().requires_grad_(False)
            classful = self.head is not None or self.noise == "sample"
            kind = StyleGanWithContext if classful else PlainStyleGan
            generator = kind(self, network, device, notes)
            generator.try_out()
        return generator


def _read(path: Any, config: StyleGan) -> Any:
    try:
        return load_pickle(path, trust=config.trust, sha256=config.sha256)
    except WeightError as error:
        if "tflib" in str(error):
            raise WeightError(
                f"weight file '{path}' is a pickle of the TensorFlow code. Convert it: python legacy.py "
                f"--source={path} --dest=converted.pkl, in the checkout."
            ) from error
        raise


def _checked(content: Any, path: Any, config: StyleGan) -> Any:
    """The moving average of the generator, which must have what a generator has."""
    if not isinstance(content, Mapping) or "G_ema" not in content:
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise WeightError(f"weight file '{path}' has no 'G_ema', found {found}. Use a network pickle.")
    network = content["G_ema"]
    for name in ("mapping", "synthesis", "z_dim", "w_dim", "c_dim", "img_resolution", "img_channels"):
        if not hasattr(network, name):
            raise WeightError(f"weight file '{path}': G_ema has no '{name}', so it is no StyleGAN generator.")
    if network.img_resolution != config.resolution:
        raise SuiteError(
            f"resolution is {config.resolution}, and '{path}' makes {network.img_resolution} px images."
        )
    if network.img_channels != 3:
        raise WeightError(f"weight file '{path}' makes images of {network.img_channels} channels, not 3.")
    if config.classes is not None and len(config.classes) != network.c_dim:
        raise SuiteError(
            f"classes has {len(config.classes)} names, and '{path}' knows {network.c_dim or 'no'} classes."
        )
    if config.latent == "z" and config.classes is None and network.c_dim:
        raise SuiteError(f"'{path}' is class-conditional: with 'latent: z' give 'head' and 'classes'.")
    # A StyleGAN-XL network is built from other files (its stem, class embeddings), so it is not built anew.
    arguments = getattr(network, "init_kwargs", None)
    if arguments is not None and not hasattr(network.mapping, "embed_proj"):
        with torch.random.fork_rng(devices=()):
            again = type(network)(*network.init_args, **arguments)
        check_state(
            network.state_dict(), again.state_dict(), what=f"its own {type(network).__name__}", path=path
        )
    return network


class StyleGanGenerator:
    """G of a StyleGAN. ``notes`` says which operators compute it."""

    def __init__(self, config: StyleGan, network: Any, device: torch.device, notes: Mapping[str, str]):
        self.config, self.network, self.device = config, network, device
        self.resolution: int = config.resolution
        precision = "float32" if config.float32 or device.type != "cuda" else "as published"
        self.notes = {**{f"operator {name}": value for name, value in notes.items()}, "precision": precision}
        self._arguments = {
            "noise_mode": "none" if config.noise == "none" else "const",
            "force_fp32": config.float32 or device.type != "cuda",
        }
        dim = network.w_dim if config.latent == "w" else network.z_dim
        self.latent = LatentSpace(
            blocks=(Block(name=config.latent, dim=dim),),
            sample=self._sample,
            stratified=self._sample if config.y_prior == "categorical_fixed" else None,
        )

    def _sample(self, streams: Streams, number_N: Tensor | None = None) -> Tensor:
        z = streams.normal("prior:z", (self.network.z_dim,))
        if self.config.latent == "z":
            return z
        if not self.network.c_dim:
            return self.mapped(z, None)
        if number_N is not None:
            return self.mapped(z, number_N % self.network.c_dim)
        return self.mapped(z, streams.integers("prior:class", self.network.c_dim))

    def mapped(self, z_ND: Tensor, label_N: Tensor | None) -> Tensor:
        """w (N, w_dim), truncated."""
        onehot = None
        if label_N is not None:
            onehot = torch.nn.functional.one_hot(label_N, self.network.c_dim).to(z_ND)
        w = self.network.mapping(z_ND, onehot)[:, 0]
        if self.config.truncation == 1:
            return w
        centre = self.network.mapping.w_avg
        if centre.ndim == 2:  # StyleGAN-XL: one per class
            centre = centre[label_N]
        return centre + self.config.truncation * (w - centre)

    def synthesized(self, w_ND: Tensor) -> Tensor:
        ws = w_ND[:, None].expand(-1, self.network.mapping.num_ws, -1)
        return self.network.synthesis(ws, **self._arguments).float().clamp(-1, 1)

    def try_out(self) -> None:
        """One image and its gradient, so that what the code imports or compiles at first is there."""
        streams = Streams.from_seed(1, "try out", device=self.device)
        with torch.enable_grad():
            w = torch.zeros(1, self.network.w_dim, device=self.device, requires_grad=True)
            torch.autograd.grad(self.synthesized(w).sum(), w)
        with torch.no_grad():
            self.latent.prior(streams)


class PlainStyleGan(StyleGanGenerator):
    """G(w), or G(z) of a network without classes."""

    def decode(self, z_ND: Tensor) -> Tensor:
        return self.synthesized(z_ND if self.config.latent == "w" else self.mapped(z_ND, None))


class StyleGanWithContext(StyleGanGenerator):
    """G with a class from the condition, or noise of a sample's own."""

    def context(self, conditions: Sequence[Condition] | None, streams: Streams) -> Context:
        """``label`` int64 (N,), and ``noise`` float32 (N, pixels of all layers)."""
        found: dict[str, Tensor] = {}
        if self.config.head is not None:
            if conditions is None:
                raise SuiteError("this StyleGAN takes its class from the condition, so it needs one.")
            found["label"] = torch.tensor([self._label(item) for item in conditions], device=streams.device)
        if self.config.noise == "sample":
            size = sum(buffer.numel() for _, buffer in self._noise_buffers())
            found["noise"] = streams.normal("stylegan:noise", (size,))
        return found

    def decode(self, z_ND: Tensor, context: Context) -> Tensor:
        w = z_ND if self.config.latent == "w" else self.mapped(z_ND, context.get("label"))
        if "noise" not in context:
            return self.synthesized(w)
        start, own = 0, self._noise_buffers()
        try:
            # A buffer of shape (N, 1, H, W) broadcasts to one noise a sample where (H, W) is meant for all.
            for module, buffer in own:
                part = context["noise"][:, start : start + buffer.numel()]
                module.noise_const = part.reshape(-1, 1, *buffer.shape)
                start += buffer.numel()
            return self.synthesized(w)
        finally:
            for module, buffer in own:
                module.noise_const = buffer

    def _noise_buffers(self) -> list[tuple[Any, Tensor]]:
        modules = self.network.synthesis.modules()
        return [(m, m.noise_const) for m in modules if getattr(m, "noise_const", None) is not None]

    def _label(self, condition: Condition) -> int:
        assert self.config.classes is not None
        value = condition.labels.get(str(self.config.head))
        if value not in self.config.classes:
            raise SuiteError(
                f"condition '{condition.id}' asks for {self.config.head}={value!r}, which classes does not "
                f"name.{nearest(str(value), self.config.classes)}"
            )
        return self.config.classes.index(value)
