"""A small repository with the layout of the official StyleGAN ones, written into a folder by the tests.

Its networks pickle their own source, as the official ones do; ``torch_utils`` must be the checkout's.
"""

from __future__ import annotations

import hashlib
import pickle
import textwrap
from pathlib import Path

from bench.generators.checkout.imports import Checkout

PERSISTENCE = """
import sys, types

def reconstruct(meta):
    module = types.ModuleType("_imported_" + str(abs(hash(meta["source"]))))
    exec(meta["source"], module.__dict__)
    made = module.__dict__[meta["name"]].__new__(module.__dict__[meta["name"]])
    made.__dict__.update(meta["state"])
    return made

class Persistent:
    def __reduce__(self):
        state = {k: v for k, v in self.__dict__.items()}
        return reconstruct, ({"source": SOURCES[0], "name": type(self).__name__, "state": state},)

SOURCES = []
"""

NETWORKS = """
import torch
from torch_utils import persistence
from torch_utils.ops import bias_act

class Mapping(persistence.Persistent, torch.nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, num_ws, centres):
        super().__init__()
        self.num_ws, self.c_dim = num_ws, c_dim
        self.fc = torch.nn.Linear(z_dim + c_dim, w_dim)
        self.register_buffer("w_avg", torch.randn(c_dim, w_dim) if centres else torch.randn(w_dim))

    def forward(self, z, c):
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        w = torch.tanh(self.fc(z if c is None else torch.cat([z, c], 1)))
        return w.unsqueeze(1).repeat(1, self.num_ws, 1)

class Layer(persistence.Persistent, torch.nn.Module):
    def __init__(self, w_dim, size):
        super().__init__()
        self.affine = torch.nn.Linear(w_dim, 3)
        self.register_buffer("noise_const", torch.randn(size, size))
        self.noise_strength = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, x, w, noise_mode):
        x = torch.nn.functional.interpolate(x, scale_factor=2) + self.affine(w)[:, :, None, None]
        if noise_mode == "random":
            raise AssertionError("noise must not be drawn anew")
        return bias_act.bias_act(x + (self.noise_const * self.noise_strength if noise_mode == "const" else 0))

class Synthesis(persistence.Persistent, torch.nn.Module):
    def __init__(self, w_dim):
        super().__init__()
        self.start = torch.nn.Parameter(torch.randn(1, 3, 4, 4))
        self.layers = torch.nn.ModuleList([Layer(w_dim, 8), Layer(w_dim, 16)])

    def forward(self, ws, noise_mode="random", force_fp32=False):
        assert force_fp32 and ws.shape[1] == 2
        x = self.start.expand(len(ws), -1, -1, -1)
        for i, layer in enumerate(self.layers):
            x = layer(x, ws[:, i], noise_mode)
        return x

class Generator(persistence.Persistent, torch.nn.Module):
    def __init__(self, z_dim=6, c_dim=0, w_dim=5, img_resolution=16, img_channels=3, centres=False):
        super().__init__()
        self.init_args, self.init_kwargs = (), {"c_dim": c_dim, "centres": centres}
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.mapping = Mapping(z_dim, c_dim, w_dim, 2, centres)
        self.synthesis = Synthesis(w_dim)
"""

BIAS_ACT = """
import torch

def _init():
    raise RuntimeError("no compiler here\\nlong story")

def bias_act(x):
    if x.device.type == "cuda" and _init():
        raise AssertionError("compiled operator")
    return torch.nn.functional.leaky_relu(x, 0.2) * GAIN
"""


def write_checkout(root: Path, gain: float = 1.0) -> Path:
    """The repository; ``gain`` scales what each layer gives, so that two checkouts differ."""
    for name, text in {
        "dnnlib/__init__.py": "",
        "torch_utils/__init__.py": "",
        "torch_utils/persistence.py": PERSISTENCE,
        "torch_utils/ops/__init__.py": "",
        "torch_utils/ops/bias_act.py": f"GAIN = {gain}\n{BIAS_ACT}",
        "training/__init__.py": "",
        "training/networks.py": NETWORKS,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return root


def write_pickle(repo: Path, path: Path, change=None, **arguments) -> str:
    """Pickles {G, D, G_ema} of a random network of the checkout, and returns the file's sha256.

    ``change`` may spoil the network before.
    """
    import torch

    checkout = Checkout.at(repo, source="here")
    with checkout.active(), torch.random.fork_rng():
        torch.manual_seed(0)
        checkout.load("torch_utils.persistence").SOURCES[:] = [NETWORKS]
        network = checkout.load("training.networks").Generator(**arguments).eval().requires_grad_(False)
        if change is not None:
            change(network)
        path.write_bytes(pickle.dumps({"G": None, "D": None, "G_ema": network}))
    return hashlib.sha256(path.read_bytes()).hexdigest()
