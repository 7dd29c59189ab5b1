"""The NVAE adapter, on a miniature repository of the same layout.

Beside the official code at random weights (``side_by_side/nvae.py``; NVlabs/NVAE 9fc1a28; CPU, float32; 3
scales, 6 groups): images of a logistic mixture within 1.2e-7, of a normal pixel distribution within 8.9e-8.
"""

from __future__ import annotations

import argparse
import hashlib
import re

import pytest
import torch

from bench.errors import SuiteError, WeightError
from bench.generators.base import context_rows
from bench.generators.checkout.nvae import Nvae
from bench.identity import weight_hashes
from bench.streams import Streams

CPU = torch.device("cpu")
STREAMS = Streams.from_seed(6, "nvae")
ARGUMENTS = {"arch_instance": "plain", "groups": 3, "latents": 2, "size": 16}

FILES = {
    "neural_operations.py": "",
    "utils.py": """
def get_arch_cells(name):
    return {"plain": {}}[name]
""",
    "distributions.py": """
import torch

class Normal:
    def __init__(self, mu, log_sigma, temp=1.0):
        self.mu = 5 * torch.tanh(mu / 5)
        self.sigma = (torch.exp(5 * torch.tanh(log_sigma / 5)) + 1e-2) * temp

class Mean:
    def __init__(self, images):
        self.images = images

    def mean(self):
        return self.images
""",
    "thirdparty/__init__.py": "",
    "thirdparty/inplaced_sync_batchnorm.py": """
import torch

class SyncBatchNormSwish(torch.nn.BatchNorm2d):
    def forward(self, x):
        raise ValueError("CUDA only")
""",
    "model.py": """
import torch
from torch import nn
from distributions import Mean
from thirdparty.inplaced_sync_batchnorm import SyncBatchNormSwish

class Combine(nn.Module):
    cell_type = "combiner_dec"

    def __init__(self, channels, latents):
        super().__init__()
        self.mix = nn.Conv2d(channels + latents, channels, 1)

    def forward(self, s, z):
        return self.mix(torch.cat([s, z], 1))

class Up(nn.Module):
    cell_type = "up_dec"

    def __init__(self, channels):
        super().__init__()
        self.bn_act = SyncBatchNormSwish(channels)
        self.init_done = False

    def forward(self, s):
        assert self.init_done
        return nn.functional.interpolate(self.bn_act(s), scale_factor=2)

class AutoEncoder(nn.Module):
    def __init__(self, args, writer, arch_instance):
        super().__init__()
        assert args.num_mixture_dec == 10 and not args.ada_groups  # filled in for old checkpoints
        self.input_size, self.groups_per_scale, self.vanilla_vae = args.size, [args.groups] * 2, False
        self.z0_size = [args.latents, args.size // 4, args.size // 4]
        self.prior_ftr0 = nn.Parameter(torch.rand(6, args.size // 4, args.size // 4))
        cells = [Combine(6, args.latents) for _ in range(2 * args.groups)]
        cells.insert(args.groups, Up(6))
        self.dec_tower = nn.ModuleList(cells)
        samplers = [nn.Conv2d(6, 2 * args.latents, 1) for _ in range(2 * args.groups - 1)]
        self.dec_sampler = nn.ModuleList(samplers)
        self.post_process = nn.ModuleList([Up(6)])
        self.image_conditional = nn.Conv2d(6, 3, 1)

    def decoder_output(self, logits):
        return Mean(torch.sigmoid(logits))
""",
}


@pytest.fixture
def settings(tmp_path):
    return write(tmp_path)


def write(folder, change=None):
    """A checkout and a checkpoint of its network, as the settings of a config."""
    from bench.generators.checkout.imports import Checkout

    repo = folder / "repo"
    for name, text in FILES.items():
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(text)
    arguments = argparse.Namespace(**ARGUMENTS)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        full = argparse.Namespace(**ARGUMENTS, num_mixture_dec=10, ada_groups=False)
        network = Checkout.at(repo, source="here").load("model").AutoEncoder(full, None, {})
        network.dec_tower[3].bn_act.running_mean.normal_()
    state = {**network.state_dict(), "dec_tower.0.mix.weight_normalized": torch.zeros(1)}
    if change is not None:
        change(state)
    path = folder / "checkpoint.pt"
    torch.save({"args": arguments, "state_dict": state, "epoch": 3}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"weights": str(path), "repo": str(repo), "resolution": 16, "sha256": sha256, "trust": True}


def test_the_top_group_is_the_latent_and_the_rest_each_samples_own(settings):
    generator = Nvae(**settings, mean_groups=1).load(CPU)
    assert [(b.name, b.dim, b.bound) for b in generator.latent.blocks] == [("z", 2 * 4 * 4, None)]
    many = Streams.from_seed(4000, "many")
    assert float(generator.latent.prior(many).std()) == pytest.approx(0.606, rel=0.01)
    z = generator.latent.prior(STREAMS).requires_grad_()
    context = generator.context(None, STREAMS)
    # Below the top: groups 1 and 2 of the first scale, 3 to 5 of the second; group 1 takes its mean.
    assert context["noise"].shape == (6, 2 * 16 + 3 * 2 * 64)
    images = generator.decode(z, context)
    assert images.shape == (6, 3, 16, 16)
    (gradient,) = torch.autograd.grad(images.sum(), z)
    assert (gradient.abs().sum(1) > 0).all()
    rows = [slice(i, i + 1) for i in range(6)]
    alone = torch.cat([generator.decode(z[row], context_rows(context, row)) for row in rows])
    assert torch.allclose(alone, images, atol=1e-6)
    same_z = generator.decode(z[:1].expand(6, -1), context)
    assert (same_z[0] - same_z[1]).abs().max() > 1e-3
    means = Nvae(**settings, mean_groups=5).load(CPU)
    assert means.context(None, STREAMS)["noise"].shape == (6, 0)
    assert means.notes["groups"] == "0 of 6 drawn, for each sample once"
    same_z = means.decode(z[:1].expand(6, -1), means.context(None, STREAMS))
    assert torch.allclose(same_z[0], same_z[1])
    assert "not re-estimated" in means.notes["batch norm"]


def test_temperature_scales_the_prior_and_the_lower_groups(settings):
    streams = Streams.from_seed(300, "temperature")
    spread = []
    for temperature in (0.3, 0.6):
        generator = Nvae(**settings, mean_groups=1, temperature=temperature).load(CPU)
        context = generator.context(None, streams)
        z = torch.zeros(300, generator.latent.dim)
        spread.append(generator.decode(z, context).std(0).mean())
        assert float(generator.latent.prior(streams).std()) == pytest.approx(1.01 * temperature, rel=0.03)
    assert 1.8 < spread[1] / spread[0] < 2.2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("prior_ftr0"), "missing key 'prior_ftr0'"),
        (lambda s: s.update(ghost=torch.zeros(1)), "unexpected key 'ghost'"),
        (lambda s: s.update(prior_ftr0=torch.zeros(2)), "'prior_ftr0' has shape (2,), expected (6, 4, 4)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_the_key(tmp_path, change, says):
    with pytest.raises(WeightError, match=re.escape(says)):
        Nvae(**write(tmp_path, change)).load(CPU)


def test_what_is_refused(settings, tmp_path):
    def refused(says, error=WeightError, **changes):
        with pytest.raises(error, match=re.escape(says)):
            Nvae(**settings | changes).load(CPU)

    refused("'trust: true'", trust=False)
    refused("trust needs the file's sha256", sha256=None)
    refused("an official NVAE checkpoint", weights=str(tmp_path / "gone.pt"))
    refused("git clone https://github.com/NVlabs/NVAE", repo=str(tmp_path / "gone"))
    refused("resolution is 64", SuiteError, resolution=64)
    (tmp_path / "repo" / "utils.py").write_text("import no_such_package_here\n")
    repo = (tmp_path / "repo").rename(tmp_path / "moved")
    refused("'utils' needs the package 'no_such_package_here'", repo=str(repo))
    assert set(weight_hashes(Nvae(**settings | {"repo": str(repo)}))) == {"checkpoint.pt", "moved"}
