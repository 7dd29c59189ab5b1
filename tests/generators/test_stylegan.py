"""The adapter of the official StyleGAN pickles, on a miniature repository of the same layout.

Beside the official code at random weights (``side_by_side/stylegan.py``; stylegan2-ada-pytorch d72cc7d,
stylegan3 c233a91, stylegan-xl 4241ff9; CPU, float32): w and images at psi 1 equal to the bit, at psi 0.6
within 2.4e-7 and 2.0e-6; gradients within 1.3e-6 of the largest coordinate; images one by one within 2.5e-6.
"""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from generators.miniature_checkout import write_checkout, write_pickle

from bench.errors import SuiteError, WeightError
from bench.generators.base import context_of, decode_in
from bench.generators.checkout.imports import Checkout
from bench.generators.checkout.ops import settle_ops
from bench.generators.checkout.stylegan import StyleGan
from bench.identity import weight_hashes
from bench.streams import Streams
from bench.types import Condition

CPU = torch.device("cpu")
STREAMS = Streams.from_seed(5, "stylegan")


@pytest.fixture
def files(tmp_path):
    """Settings of a config for a fresh checkout and pickle; more arguments go into the network."""

    def make(name="one", gain=1.0, change=None, **arguments):
        repo = write_checkout(tmp_path / name, gain)
        path = tmp_path / f"{name}.pkl"
        sha256 = write_pickle(repo, path, change, **arguments)
        return {
            "weights": str(path),
            "repo": str(repo),
            "resolution": 16,
            "sha256": sha256,
            "trust": True,
        }

    return make


def test_w_is_broadcast_to_all_layers_and_has_a_gradient(files):
    generator = StyleGan(**files()).load(CPU)
    assert [(b.name, b.dim, b.bound) for b in generator.latent.blocks] == [("w", 5, None)]
    w = generator.latent.prior(STREAMS).requires_grad_()
    images = generator.decode(w)
    assert images.shape == (5, 3, 16, 16)
    assert images.abs().max() <= 1
    (gradient,) = torch.autograd.grad(images.sum(), w)
    assert (gradient.abs().sum(1) > 0).all()
    alone = torch.cat([generator.decode(row[None]) for row in w])
    assert torch.allclose(alone, images, atol=1e-6)
    assert "reference (device: cpu)" in generator.notes["operator bias_act"]


@pytest.mark.parametrize("centres", [False, True])
def test_truncation_pulls_to_the_mean_w_of_all_or_of_the_class(files, centres):
    settings = files(c_dim=3, centres=centres)
    free, pulled, centre = (StyleGan(**settings, truncation=psi).load(CPU) for psi in (1.0, 0.25, 0.0))
    means = free.network.mapping.w_avg
    w, near, mean = (g.latent.prior(STREAMS) for g in (free, pulled, centre))
    assert torch.allclose(near, mean + 0.25 * (w - mean))
    label = STREAMS.integers("prior:class", 3)
    assert torch.allclose(mean, means[label] if centres else means.expand(5, -1))


def test_pairs_have_every_class_equally_often(files):
    settings = files(c_dim=3, centres=True) | {"truncation": 0.0}
    means = (generator := StyleGan(**settings).load(CPU)).network.mapping.w_avg
    assert torch.allclose(generator.latent.numbered(STREAMS, 10), means[[1, 2, 0, 1, 2]])
    drawn = StyleGan(**settings, y_prior="categorical").load(CPU).latent.numbered(STREAMS, 10)
    assert torch.allclose(drawn, means[STREAMS.integers("prior:class", 3)])


def test_a_class_from_the_condition(files):
    settings = files(c_dim=2) | {"latent": "z", "head": "pet", "classes": ("cat", "dog")}
    config = StyleGan(**settings)
    assert config.needs_conditions
    assert config.kinds == ("class",)
    generator = config.load(CPU)
    z = generator.latent.prior(STREAMS)
    assert torch.equal(z, STREAMS.normal("prior:z", (6,)))
    asked = [Condition(id=v, kind="class", labels={"pet": v}) for v in ("dog", "cat", "dog", "dog", "cat")]
    context = generator.context(asked, STREAMS)
    assert context["label"].tolist() == [1, 0, 1, 1, 0]
    images = generator.decode(z, context)
    w = generator.mapped(z, context["label"])
    assert torch.equal(images, generator.synthesized(w))
    with pytest.raises(SuiteError, match=r"asks for pet='cow', which classes does not name"):
        generator.context([Condition(id="c", kind="class", labels={"pet": "cow"})], STREAMS[:1])
    with pytest.raises(SuiteError, match="takes its class from the condition"):
        generator.context(None, STREAMS)
    with pytest.raises(SuiteError, match="classes has 3 names"):
        StyleGan(**settings | {"classes": ("a", "b", "c")}).load(CPU)
    with pytest.raises(SuiteError, match="give 'head' and 'classes'"):
        StyleGan(**settings | {"head": None, "classes": None}).load(CPU)


def test_noise_of_each_sample_stays_with_it(files):
    settings = files()
    generator = StyleGan(**settings, noise="sample").load(CPU)
    w = torch.zeros(5, 5)
    context = context_of(generator, None, STREAMS)
    assert context["noise"].shape == (5, 8 * 8 + 16 * 16)
    images = decode_in(generator, w, context)
    assert (images[0] - images[1]).abs().max() > 0.01
    assert torch.equal(images, decode_in(generator, w, context))
    one = decode_in(generator, w[3:4], context_of(generator, None, STREAMS[3:4]))
    assert torch.allclose(one[0], images[3], atol=1e-6)
    layers = generator.network.synthesis.layers
    assert [tuple(layer.noise_const.shape) for layer in layers] == [(8, 8), (16, 16)], "put back"
    const, none = (StyleGan(**settings, noise=n).load(CPU).decode(w) for n in ("const", "none"))
    assert torch.equal(const[0], const[1])
    assert not torch.allclose(const, none)


def test_two_checkouts_in_one_process_and_nothing_left_behind(files):
    mine = SimpleNamespace()
    sys.modules["torch_utils"] = mine  # somebody else's
    try:
        one, two = files("one", 1.0), files("two", 0.5)
        first, second = (StyleGan(**settings).load(CPU) for settings in (one, two))
        assert sys.modules["torch_utils"] is mine
    finally:
        del sys.modules["torch_utils"]
    w = first.latent.prior(STREAMS)
    a, b = first.decode(w), second.decode(w)
    assert torch.equal(first.network.state_dict()["mapping.fc.weight"], second.network.mapping.fc.weight)
    assert not torch.allclose(a, b), "each computes with its own checkout's operators"
    assert torch.equal(StyleGan(**one).load(CPU).decode(w), a)
    assert not [name for name in sys.modules if name.split(".")[0] in ("torch_utils", "dnnlib", "training")]
    assert not [path for path in sys.path if path in (one["repo"], two["repo"])]


def test_operators_that_cannot_be_built_are_replaced_and_told(tmp_path):
    checkout = Checkout.at(write_checkout(tmp_path / "repo"), source="here")
    notes = settle_ops(checkout, "cuda")
    assert notes == {"bias_act": "reference (RuntimeError: no compiler here)"}
    with checkout.active():
        assert checkout.load("torch_utils.ops.bias_act")._init() is False


def test_the_code_of_a_checkout_is_part_of_the_identity(files, tmp_path):
    config = StyleGan(**files())
    before = weight_hashes(config)
    assert set(before) == {"one.pkl", "one"}
    repo = tmp_path / "one"
    (repo / "notes.md").write_text("x")
    (repo / "results.npz").write_text("x")
    assert weight_hashes(config) == before
    (repo / "training" / "networks.py").write_text("# changed")
    assert weight_hashes(config)["one"] != before["one"]


def drop(network):
    del network.synthesis.layers[1].affine.weight


def extra(network):
    network.synthesis.register_buffer("ghost", torch.zeros(1))


def reshape(network):
    network.mapping.fc.weight = torch.nn.Parameter(torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop, "missing key 'synthesis.layers.1.affine.weight'"),
        (extra, "unexpected key 'synthesis.ghost'"),
        (reshape, "'mapping.fc.weight' has shape (5, 4), expected (5, 6)"),
    ],
)
def test_a_network_that_is_not_whole_is_refused_by_the_key(files, change, says):
    with pytest.raises(WeightError, match=re.escape(says)):
        StyleGan(**files(change=change)).load(CPU)


def test_what_is_refused(files, tmp_path):
    settings = files()
    sha256 = settings["sha256"]

    def refused(says, error=WeightError, **changes):
        with pytest.raises(error, match=re.escape(says)):
            StyleGan(**settings | changes).load(CPU)

    refused("say 'trust: true' in the suite and give the matching 'sha256'", trust=False)
    refused(f"Its sha256 is {sha256}", sha256=None)
    refused("is corrupt or another version", sha256="0" * 64)
    refused("an official StyleGAN pickle", weights=str(tmp_path / "gone.pkl"))
    refused("git clone https://github.com/NVlabs/stylegan2-ada-pytorch", repo=str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    refused("it lacks 'dnnlib/__init__.py'", repo=str(tmp_path / "empty"))
    refused("resolution is 64, and", SuiteError, resolution=64)
    with pytest.raises(SuiteError, match="truncation must be in"):
        StyleGan(**settings | {"truncation": 3.0})
    with pytest.raises(SuiteError, match="head and classes go together"):
        StyleGan(**settings | {"head": "pet"})
