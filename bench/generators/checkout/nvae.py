"""NVAE (Vahdat and Kautz 2020, arXiv:2007.03898) from official checkpoints and a checkout of its code.

The latent is the top group of latent variables; N samples, G groups below it.
"""

from __future__ import annotations

import contextlib
import math
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.assets.missing import Published, require_file
from bench.assets.pickles import load_torch_file
from bench.assets.state import check_state
from bench.errors import SuiteError, WeightError
from bench.generators.base import Block, Context, LatentSpace
from bench.generators.checkout.imports import Checkout
from bench.streams import Streams
from bench.types import Condition

SOURCE = "https://github.com/NVlabs/NVAE"
WEIGHTS = Published(
    what="an official NVAE checkpoint (checkpoint.pt)",
    source=f"the README of {SOURCE}",
    size="0.5 to 2 GB",
)
REPO = Published(what="a checkout of NVAE", source=SOURCE, code=True)
NEEDS = ("model.py", "distributions.py", "neural_operations.py", "utils.py")
# The repository's evaluate.py fills in what checkpoints of its first version lack.
OLD_ARGUMENTS = {"ada_groups": False, "min_groups_per_scale": 1, "num_mixture_dec": 10}


@dataclass(frozen=True, kw_only=True)
class Nvae:
    """NVAE's decoder: the top group is the latent (20 × 8 × 8 = 1,280 on 256 px faces), unbounded.

    ``weights`` is a checkpoint, a pickle that needs ``trust: true`` and its ``sha256``; ``repo`` the checkout
    whose code it needs. The prior's deviation is 1.01 ``temperature`` (the repository adds 0.01 to sigma). Of
    the groups below, the first ``mean_groups`` take their prior's mean and the others a draw at
    ``temperature``, one for each sample (TR0N: 7, at 0.6). Images are the mean of the pixels' distribution.
    Batch-norm statistics are those of the checkpoint; TR0N's were re-estimated for sampling by a code that it
    does not publish. ``half`` runs the decoder under autocast on CUDA, as published.
    """

    weights: str
    repo: str
    resolution: int
    sha256: str | None = None
    trust: bool = False
    temperature: float = 0.6
    mean_groups: int = 7
    half: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 1.5:
            raise SuiteError(f"temperature must be in (0, 1.5], got {self.temperature}.")
        if self.mean_groups < 0:
            raise SuiteError(f"mean_groups must not be negative, got {self.mean_groups}.")

    @property
    def assets(self) -> Mapping[str, Published]:
        return {"weights": WEIGHTS, "repo": REPO}

    def load(self, device: torch.device) -> NvaeGenerator:
        path = require_file(self.weights, WEIGHTS)
        checkout = Checkout.at(self.repo, source=SOURCE, needs=NEEDS)
        content = load_torch_file(path, trust=self.trust, sha256=self.sha256)
        if not isinstance(content, Mapping) or not {"args", "state_dict"} <= set(content):
            raise WeightError(f"weight file '{path}' has no 'args' and 'state_dict': no NVAE checkpoint.")
        with contextlib.redirect_stdout(sys.stderr), checkout.active():
            normal = checkout.load("distributions").Normal
            network = _built(checkout, content["args"])
            _fill(network, content["state_dict"], path)
            network = network.to(device).eval().requires_grad_(False)
            _settle(network, checkout)
            generator = NvaeGenerator(self, network, normal, device)
            streams = Streams.from_seed(1, "try out", device=device)
            with torch.no_grad():
                generator.decode(generator.latent.prior(streams), generator.context(None, streams))
        if network.input_size != self.resolution:
            raise SuiteError(
                f"resolution is {self.resolution}, and '{path}' makes {network.input_size} px images."
            )
        return generator


def _built(checkout: Checkout, arguments: Namespace) -> Any:
    arguments = Namespace(**OLD_ARGUMENTS | vars(arguments))
    cells = checkout.load("utils").get_arch_cells(arguments.arch_instance)
    return checkout.load("model").AutoEncoder(arguments, None, cells)


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Any) -> None:
    # Some checkpoints hold normalized weights as well, which the code computes from the others.
    state = {key: value for key, value in state.items() if not key.endswith("weight_normalized")}
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("weight_normalized")}
    check_state(state, own, what="the NVAE that its 'args' describe", path=path)
    network.load_state_dict(state, strict=False)


def _settle(network: nn.Module, checkout: Checkout) -> None:
    """Evaluation by torch's own operators: the repository's batch norm with swish is for CUDA only, and its
    layers would initialise themselves from the first batch they see."""
    fused = checkout.load("thirdparty.inplaced_sync_batchnorm").SyncBatchNormSwish
    for module in network.modules():
        if isinstance(module, fused):
            module.forward = _norm_swish(module)
        if hasattr(module, "init_done"):
            setattr(module, "init_done", True)  # noqa: B010 - a plain attribute, which Module hides from types


def _norm_swish(module: Any) -> Any:
    def forward(x: Tensor) -> Tensor:
        mean, variance = module.running_mean, module.running_var
        x = F.batch_norm(x, mean, variance, module.weight, module.bias, False, 0.0, module.eps)
        return F.silu(x)

    return forward


class NvaeGenerator:
    """G(z; noise of the lower groups)."""

    def __init__(self, config: Nvae, network: Any, normal: Any, device: torch.device):
        self.config, self.network, self.normal = config, network, normal
        self.device = device
        self.resolution: int = network.input_size
        self.shape = tuple(network.z0_size)
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=math.prod(self.shape)),),
            sample=lambda streams: self._deviation() * streams.normal("prior:z", (math.prod(self.shape),)),
        )
        self.sampled = self._sampled_shapes()
        self.notes = {
            "batch norm": "statistics of the checkpoint, not re-estimated for sampling",
            "groups": f"{len(self.sampled)} of {sum(network.groups_per_scale)} drawn, for each sample once",
        }

    def _deviation(self) -> float:
        zero = torch.zeros(1)
        return float(self.normal(zero, zero, self.config.temperature).sigma)

    def _sampled_shapes(self) -> dict[int, tuple[int, ...]]:
        """Index of each group below the top that is drawn → its shape; group 0 is the top."""
        channels, height, width = self.shape
        shapes: dict[int, tuple[int, ...]] = {}
        index = 0
        for scale, groups in enumerate(reversed(self.network.groups_per_scale)):
            for _ in range(groups):
                if index > self.config.mean_groups:
                    shapes[index] = (channels, height * 2**scale, width * 2**scale)
                index += 1
        return shapes

    def context(self, conditions: Sequence[Condition] | None, streams: Streams) -> Context:
        """``noise`` float32 (N, coordinates of all drawn groups)."""
        size = sum(math.prod(shape) for shape in self.sampled.values())
        return {"noise": streams.normal("nvae:noise", (size,))}

    def decode(self, z_ND: Tensor, context: Context) -> Tensor:
        half = self.config.half and self.device.type == "cuda"
        with torch.autocast("cuda", dtype=torch.float16) if half else contextlib.nullcontext():
            logits = self._logits(z_ND.view(-1, *self.shape), context["noise"])
        images = self._mean(logits.float())
        return images.expand(-1, 3, -1, -1).clamp(-1, 1)

    def _logits(self, z: Tensor, noise: Tensor) -> Tensor:
        network, index, start = self.network, 0, 0
        s = network.prior_ftr0[None].expand(len(z), -1, -1, -1)
        for cell in network.dec_tower:
            if cell.cell_type != "combiner_dec":
                s = cell(s)
                continue
            if index > 0:
                mean, log_sigma = network.dec_sampler[index - 1](s).chunk(2, dim=1)
                prior = self.normal(mean, log_sigma, self.config.temperature)
                z = prior.mu
                if index in self.sampled:
                    shape = self.sampled[index]
                    size = math.prod(shape)
                    z = z + prior.sigma * noise[:, start : start + size].view(-1, *shape)
                    start += size
            s = cell(s, z)
            index += 1
        if network.vanilla_vae:
            s = network.stem_decoder(z)
        for cell in network.post_process:
            s = cell(s)
        return network.image_conditional(s)

    def _mean(self, logits: Tensor) -> Tensor:
        """The mean of the pixels' distribution, in [-1, 1]."""
        output = self.network.decoder_output(logits)
        if hasattr(output, "dist"):  # a normal distribution over [-1, 1]
            return output.dist.mu
        mean = output.mean() if callable(output.mean) else output.mean  # logistic mixture, or Bernoulli
        return 2 * mean - 1
