"""BigGAN in ajbrock's format: such files load, agree with a float64 reference, and are refused when wrong.

Beside the public network at random weights and real size (tests/side_by_side/biggan.py --cases 1
--samples 1), the largest difference of a layer's output, relative to its largest value, was 1.4e-6 at
128 px, 1.6e-6 at 256 px and 1.3e-6 at 512 px; images differed by at most 9.7e-7.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from generators.biggan_files import BROCK, Y, brock_file, brock_shapes, random_state
from safetensors.torch import save_file
from scipy import stats
from torch.nn import functional as F

from bench.errors import SuiteError, WeightError
from bench.generators.biggan.brock import BigGan
from bench.generators.biggan.network import BigGanNetwork
from bench.streams import Streams

CPU = torch.device("cpu")
WIDTH, CLASSES = 4, 7


def config(path, **fields) -> BigGan:
    return BigGan(
        **{"weights": str(path), "resolution": 128, "width": WIDTH, "num_classes": CLASSES, **fields}
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return brock_file(tmp_path_factory.mktemp("biggan"))


@pytest.fixture(scope="module")
def generator(file):
    return config(file).load(CPU)


def latents(generator, num: int, seed: str = "z") -> torch.Tensor:
    return generator.latent.prior(Streams.from_seed(num, seed))


class Reference:
    """The generator in float64 from the published state dict, as the paper and the format define it.

    Spectral norm is one power iteration in NumPy, batch norm is written out, everything is in order.
    """

    def __init__(self, state, resolution: int):
        self.state = {key: value.double() for key, value in state.items()}
        _, self.chunk, self.attention = BROCK[resolution]

    def weight(self, name: str) -> torch.Tensor:
        w = self.state[f"{name}.weight"].numpy()
        matrix, u = w.reshape(len(w), -1), self.state[f"{name}.u0"].numpy()[0]
        v = matrix.T @ u
        v /= np.linalg.norm(v)
        u = matrix @ v
        u /= np.linalg.norm(u)
        return torch.from_numpy(w / (u @ matrix @ v))

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight(name)
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(self, name: str, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        gain, bias = 1 + c @ self.weight(f"{name}.gain").T, c @ self.weight(f"{name}.bias").T
        mean, var = self.state[f"{name}.stored_mean"], self.state[f"{name}.stored_var"]
        standard = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return standard * gain[:, :, None, None] + bias[:, :, None, None]

    def attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        query = self.conv(f"{name}.theta", x).reshape(n, -1, h * w)
        key, value = (
            F.max_pool2d(self.conv(f"{name}.{part}", x), 2).reshape(n, -1, h * w // 4)
            for part in ("phi", "g")
        )
        share = torch.einsum("ncq,nck->nqk", query, key).softmax(2)
        mixed = torch.einsum("nqk,nck->ncq", share, value).reshape(n, -1, h, w)
        return x + self.state[f"{name}.gamma"] * self.conv(f"{name}.o", mixed)

    def block(self, i: int, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        def double_side(a: torch.Tensor) -> torch.Tensor:
            return a.repeat_interleave(2, 2).repeat_interleave(2, 3)

        name = f"blocks.{i}.0"
        h = self.conv(f"{name}.conv1", double_side(self.norm(f"{name}.bn1", x, c).relu()))
        h = self.conv(f"{name}.conv2", self.norm(f"{name}.bn2", h, c).relu())
        out = h + self.conv(f"{name}.conv_sc", double_side(x))
        return self.attend(f"blocks.{i}.1", out) if i == self.attention else out

    def __call__(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first, *rest = z.double().split(self.chunk, 1)
        x = (first @ self.weight("linear").T + self.state["linear.bias"]).reshape(len(z), -1, 4, 4)
        for i, part in enumerate(rest):
            x = self.block(i, x, torch.cat([y.double(), part], 1))
        part = {
            key: self.state[f"output_layer.0.{key}"] for key in ("gain", "bias", "stored_mean", "stored_var")
        }
        scale = part["gain"] / (part["stored_var"] + 1e-5).sqrt()
        x = (x - part["stored_mean"][:, None, None]) * scale[:, None, None] + part["bias"][:, None, None]
        return self.conv("output_layer.2", x.relu()).tanh()


@pytest.mark.parametrize("resolution", [128, 256, 512])
def test_a_file_of_the_published_format_gives_the_reference_images(tmp_path, resolution):
    path = brock_file(tmp_path, resolution)
    generator = config(path, resolution=resolution).load(CPU)
    num = 1 if resolution == 256 else 2  # attention at 128 px takes half a gigabyte in float64
    z = latents(generator, num)
    z_dim = {128: 120, 256: 140, 512: 128}[resolution]
    assert generator.latent.slices == {"z": slice(0, z_dim), "y": slice(z_dim, z_dim + Y)}
    with torch.no_grad():
        image = generator.decode(z)
        truth = Reference(torch.load(path), resolution)(z[:, :z_dim], z[:, z_dim:])
    assert image.shape == (num, 3, resolution, resolution)
    assert truth.std() > 0.1  # neither flat nor saturated
    assert (image - truth).abs().max() < 1e-5


def test_the_real_sizes_have_as_many_parameters_as_the_format():
    counts = {128: 70_433_988, 256: 82_097_604, 512: 82_296_804}
    for resolution, count in counts.items():
        with torch.device("meta"):
            network = BigGanNetwork(resolution, width=96, num_classes=1000, bn_eps=1e-5)
        assert sum(p.numel() for p in network.parameters()) == count
        shapes = brock_shapes(resolution, 96, 1000)
        learned = [key for key in shapes if not key.endswith(("u0", "sv0", "stored_mean", "stored_var"))]
        assert sum(math.prod(shapes[key]) for key in learned) == count


def test_the_form_converted_from_tf_hub_is_the_same_model(file, generator, tmp_path):
    """Its converter writes no logged singular values; a scalar may come as one value."""
    state = {key: value for key, value in torch.load(file).items() if not key.endswith("sv0")}
    state = {key: value.reshape(1) if key.endswith("gamma") else value for key, value in state.items()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "new.safetensors")
    z = latents(generator, 1)
    for name in ("old.pth", "new.safetensors"):
        assert torch.equal(config(tmp_path / name).load(CPU).decode(z), generator.decode(z))


@pytest.mark.parametrize(
    "key",
    [
        "shared.weight",
        "linear.u0",
        "blocks.0.0.bn1.gain.weight",
        "blocks.2.0.conv_sc.bias",
        "blocks.3.1.gamma",
        "blocks.3.1.o.weight",
        "blocks.4.0.bn2.stored_var",
        "output_layer.0.gain",
        "output_layer.2.weight",
    ],
)
def test_a_missing_or_misshaped_key_is_refused_by_name(file, tmp_path, key):
    state = torch.load(file)
    value = state.pop(key)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightError, match=f"missing key '{key}'"):
        config(tmp_path / "net.pth").load(CPU)
    torch.save({**state, key: torch.zeros(*value.shape, 2)}, tmp_path / "net.pth")
    with pytest.raises(WeightError, match=f"'{key}' has shape"):
        config(tmp_path / "net.pth").load(CPU)


def test_other_models_are_refused(file, tmp_path):
    state = torch.load(file)
    torch.save({**state, "blocks.4.1.gamma": torch.zeros(())}, tmp_path / "net.pth")
    with pytest.raises(WeightError, match=r"unexpected key 'blocks\.4\.1\.gamma'"):
        config(tmp_path / "net.pth").load(CPU)
    torch.save({**state, "linear.sv0": torch.ones(2)}, tmp_path / "net.pth")
    with pytest.raises(WeightError, match=r"'linear\.sv0' has shape \(2,\), expected \(1,\)"):
        config(tmp_path / "net.pth").load(CPU)
    for fields in ({"width": 8}, {"num_classes": 1000}, {"resolution": 256}):
        with pytest.raises(WeightError, match="does not fit BigGAN"):
            config(file, **fields).load(CPU)
    with pytest.raises(WeightError, match=r"sha256 is .*, expected 0000"):
        config(file, sha256="0" * 64).load(CPU)


def test_missing_weights_say_where_the_public_gets_them(tmp_path):
    with pytest.raises(WeightError) as error:
        config(tmp_path / "biggan-512.pth", resolution=512, width=96).load(CPU)
    for part in ("biggan-512.pth' is missing", "https://drive.google.com/", "330 MB", "sha256sum"):
        assert part in str(error.value)


def test_a_sample_does_not_see_its_neighbours(generator):
    z = latents(generator, 4)
    with torch.no_grad():
        together = generator.decode(z)
        alone = torch.cat([generator.decode(row) for row in z.split(1)])
        spoiled = z.clone()
        spoiled[0] = torch.nan
        beside = generator.decode(spoiled)
    assert (together - alone).abs().max() < 1e-5
    assert torch.equal(beside[1:], together[1:])


def test_the_gradient_reaches_every_coordinate_of_the_latent(generator, file):
    """Against central differences in float64, along random directions."""
    double = config(file).load(CPU)
    double.network.double()
    z = latents(generator, 2).double().requires_grad_()
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 3, 128, 128, generator=g, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((double.decode(z) * weight).sum(), z)
    assert (gradient != 0).all()
    h = 1e-7
    for _ in range(3):
        v = torch.randn(z.shape, generator=g, dtype=torch.float64)
        with torch.no_grad():
            ends = [(double.decode(z + sign * h * v) * weight).sum() for sign in (1, -1)]
        assert float((ends[0] - ends[1]) / (2 * h)) == pytest.approx(float((gradient * v).sum()), rel=1e-4)


def test_weights_are_frozen(generator):
    assert not any(p.requires_grad for p in generator.network.parameters())
    assert not generator.network.training


NUM = 4000


def test_clamped_normal_noise(file):
    z = config(file).load(CPU).latent.prior(Streams.from_seed(NUM, "normal"))[:, :120]
    assert z.abs().max() == 2
    assert float((z.abs() == 2).float().mean()) == pytest.approx(2 * stats.norm.sf(2), abs=2e-3)  # 4.55 %
    inner = z[z.abs() < 2].numpy()
    assert stats.kstest(inner[:20000], stats.truncnorm(-2, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("prior", "law"),
    [("truncate", stats.truncnorm(-2, 2, scale=0.4)), ("uniform", stats.uniform(-2, 4))],
)
def test_truncated_and_uniform_noise(file, prior, law):
    z = config(file, z_prior=prior).load(CPU).latent.prior(Streams.from_seed(NUM, prior))[:, :120]
    assert stats.kstest(z.flatten()[:20000].numpy(), law.cdf).pvalue > 1e-3
    low, high = law.support()
    assert z.min() >= np.float32(low)
    assert z.max() <= np.float32(high)


def classes_of(generator, latent: torch.Tensor) -> torch.Tensor:
    table = generator.network.shared.weight
    same = (latent[:, None, 120:] == table).all(2)
    assert same.any(1).all()  # rows of the table
    return same.int().argmax(1)


def test_classes_of_numbered_latents_are_cyclic_and_others_uniform(file):
    fixed, free = config(file).load(CPU), config(file, y_prior="categorical").load(CPU)
    streams = Streams.from_seed(NUM, "y")
    numbered = fixed.latent.numbered(streams, 10)
    assert torch.equal(classes_of(fixed, numbered), (10 + torch.arange(NUM)) % CLASSES)
    assert torch.equal(numbered[:, :120], fixed.latent.prior(streams)[:, :120])
    for latent in (
        fixed.latent.prior(streams),
        free.latent.prior(streams),
        free.latent.numbered(streams, 10),
    ):
        counts = torch.bincount(classes_of(fixed, latent), minlength=CLASSES)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_normal_class_embeddings_are_clamped_at_one_but_free_to_move(file):
    generator = config(file, y_prior="normal").load(CPU)
    y = generator.latent.prior(Streams.from_seed(NUM, "y"))[:, 120:]
    assert y.abs().max() == 1
    assert float((y.abs() == 1).float().mean()) == pytest.approx(2 * stats.norm.sf(1), abs=5e-3)
    far = torch.full((1, generator.latent.dim), 5.0)
    assert generator.latent.project(far).tolist() == [[2.0] * 120 + [5.0] * Y]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"z_bound": 0.0}, "z_bound must be positive"),
        ({"truncation": 1.5}, r"truncation must be in \(0, 1\]"),
        ({"width": 2}, "width must be 4 or more"),
        ({"bn_eps": 0.0}, "bn_eps must be positive"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(SuiteError, match=message):
        config("x.pth", **fields)


def test_the_state_dict_is_random_in_every_key():
    """The files of these tests leave no layer at a value where an error in it would not show."""
    state = random_state(brock_shapes(128, WIDTH, CLASSES))
    assert all(value.std() > 0 for value in state.values() if value.numel() > 1)
    assert dataclasses.is_dataclass(BigGan)
