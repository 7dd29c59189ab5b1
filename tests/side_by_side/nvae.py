"""The NVAE adapter beside the official sampling code, at random weights.

Needs a checkout of https://github.com/NVlabs/NVAE::

    python tests/side_by_side/nvae.py --repo NVAE

A small NVAE (32 px, 3 scales, 6 groups) is built by the repository, given random batch-norm statistics, saved
as its train.py saves checkpoints, and loaded by the adapter. Both decode the same top group and noise. The
repository's code is for CUDA: on a CPU ``cuda()`` is made to do nothing, and the check for CUDA in its fused
batch norm is taken out. tensorboardX, which it imports for logging alone, need not be installed.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import sys
import tempfile
import textwrap
import types
from pathlib import Path

import torch

from bench.generators.checkout.imports import Checkout
from bench.generators.checkout.nvae import SOURCE, Nvae
from bench.streams import Streams

ARGUMENTS = {
    "dataset": "cifar10",
    "use_se": True,
    "res_dist": True,
    "num_x_bits": 8,
    "num_latent_scales": 3,
    "num_groups_per_scale": 2,
    "num_latent_per_group": 4,
    "ada_groups": False,
    "min_groups_per_scale": 1,
    "num_channels_enc": 8,
    "num_channels_dec": 8,
    "num_preprocess_blocks": 1,
    "num_preprocess_cells": 1,
    "num_cell_per_cond_enc": 1,
    "num_postprocess_blocks": 1,
    "num_postprocess_cells": 1,
    "num_cell_per_cond_dec": 1,
    "num_mixture_dec": 5,
    "num_nf": 0,
    "arch_instance": "res_mbconv",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo", type=Path, required=True)
    repo = parser.parse_args().repo
    if "tensorboardX" not in sys.modules:
        sys.modules["tensorboardX"] = types.ModuleType("tensorboardX")
        sys.modules["tensorboardX"].SummaryWriter = object
    torch.Tensor.cuda = lambda self, *_, **__: self
    checkout = Checkout.at(repo, source=SOURCE)
    batch_norm = checkout.load("thirdparty.inplaced_sync_batchnorm")
    text = textwrap.dedent(inspect.getsource(batch_norm.SyncBatchNormSwish.forward))
    names: dict = {}
    exec(text.replace("if not input.is_cuda:", "if False:"), vars(batch_norm), names)
    batch_norm.SyncBatchNormSwish.forward = names["forward"]
    for mixtures in (5, 1):
        compare(checkout, repo, ARGUMENTS | {"num_mixture_dec": mixtures})


def compare(checkout: Checkout, repo: Path, arguments: dict) -> None:
    torch.manual_seed(3)
    with checkout.active():
        cells = checkout.load("utils").get_arch_cells(arguments["arch_instance"])
        network = checkout.load("model").AutoEncoder(argparse.Namespace(**arguments), None, cells).eval()
        distributions = checkout.load("distributions")
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    for parameter in network.dec_sampler.parameters():
        parameter.data.mul_(3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        content = {"epoch": 1, "state_dict": network.state_dict(), "args": argparse.Namespace(**arguments)}
        torch.save(content, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        config = Nvae(
            weights=str(path), repo=str(repo), resolution=32, sha256=sha256, trust=True, mean_groups=0
        )
        ours = config.load(torch.device("cpu"))
    streams = Streams.from_seed(4, "nvae")
    z, context = ours.latent.prior(streams), ours.context(None, streams)
    with torch.no_grad():
        images = ours.decode(z, context)
        alone = torch.cat(
            [ours.decode(z[i : i + 1], {"noise": context["noise"][i : i + 1]}) for i in range(4)]
        )

    shapes = list(ours.sampled.values())
    sizes = [torch.Size(shape).numel() for shape in shapes]
    parts = context["noise"].split(sizes, dim=1)
    eps = [z.view(4, *ours.shape) / (1.01 * 0.6), *(p.view(4, *s) for p, s in zip(parts, shapes))]
    distributions.sample_normal_jit = lambda mu, sigma: (mu + sigma * eps.pop(0), None)
    with torch.no_grad():
        logits = network.sample(4, 0.6)
        output = network.decoder_output(logits)
    theirs = output.dist.mu.clamp(-1, 1) if hasattr(output, "dist") else 2 * output.mean() - 1
    assert not eps, "every noise was used"
    print(
        f"mixtures {arguments['num_mixture_dec']}: images differ by {(images - theirs).abs().max():.2e} ",
        end="",
    )
    print(
        f"of {theirs.abs().max():.2f}; one by one {(alone - images).abs().max():.2e}; std {theirs.std():.2f}"
    )
    w = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ours.decode(w, context).sum(), w)
    print(f"gradient's norms {[round(float(g), 3) for g in gradient.norm(dim=1)]}; {ours.notes}")


if __name__ == "__main__":
    main()
