"""Generators from outside: TorchScript archives, and modules by import path with a state dict."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import pytest
import torch
from generators.stated_networks import Deaf, Gregarious, Small
from safetensors.torch import save_file

from bench import identity
from bench.errors import ResultError, SuiteError, WeightError
from bench.generators.latents import LatentBlock
from bench.generators.module import Module
from bench.generators.torchscript import TorchScript
from bench.recorded import read_suite
from bench.store import RunStore
from bench.streams import Streams
from bench.suite.blocks import build_component
from bench.suite.yaml import Document

CPU = torch.device("cpu")
STREAMS = Streams.from_seed(5, "stated")
LATENT = (LatentBlock(dim=4, bound=1.5), LatentBlock(name="y", dim=2, role="auxiliary", prior="zero"))


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small().eval()


def archive(network, path):
    torch.jit.script(network).save(str(path))
    return {
        "weights": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "trust": True,
        "latent": LATENT,
        "resolution": 8,
        "values": "[0, 1]",
    }


def module(network, path, name="Small", **args):
    save_file(network.state_dict(), path)
    target = f"generators.stated_networks:{name}"
    kept = {"latent": LATENT, "resolution": 8, "values": "[0, 1]"}
    return {"weights": str(path), "target": target, "args": args, **kept}


@pytest.mark.parametrize("kind", ["torchscript", "module"])
def test_the_network_is_used_as_stated(network, tmp_path, kind):
    if kind == "torchscript":
        generator = TorchScript(**archive(network, tmp_path / "g.pt")).load(CPU)
    else:
        generator = Module(**module(network, tmp_path / "g.safetensors")).load(CPU)
    assert generator.latent.slices == {"z": slice(0, 4), "y": slice(4, 6)}
    assert generator.latent.columns("auxiliary").tolist() == [4, 5]
    z = generator.latent.prior(STREAMS)
    assert torch.equal(z[:, :4], STREAMS.normal("prior:z", (4,)).clamp(-1.5, 1.5))
    assert (z[:, 4:] == 0).all()
    z.requires_grad_()
    images = generator.decode(z)
    assert torch.allclose(images, 2 * network(z) - 1, atol=1e-6)
    (gradient,) = torch.autograd.grad(images.sum(), z)
    assert (gradient.abs().sum(1) > 0).all()
    alone = torch.cat([generator.decode(row[None]) for row in z])
    assert torch.allclose(alone, images, atol=1e-6)


def test_grey_images_bytes_and_latents_of_a_shape(tmp_path):
    network = Small(channels=1).eval()
    settings = module(network, tmp_path / "g.safetensors", channels=1) | {"shape": (2, 3, 1)}
    images = Module(**settings).load(CPU).decode(torch.zeros(2, 6))
    assert images.shape == (2, 3, 8, 8)
    bytes_too = Module(**settings | {"values": "[0, 255]"}).load(CPU).decode(torch.zeros(2, 6))
    assert torch.allclose(bytes_too + 1, (images + 1) / 255, atol=1e-6)
    uniform = (LatentBlock(dim=6, bound=0.5, prior="uniform"),)
    drawn = Module(**settings | {"latent": uniform}).load(CPU).latent.prior(Streams.from_seed(400, "u"))
    assert drawn.abs().max() <= 0.5
    assert float(drawn.std()) == pytest.approx(0.5 / 3**0.5, rel=0.05)


def test_a_prefix_picks_one_network_of_several(network, tmp_path):
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    settings = module(network, tmp_path / "g.safetensors")
    save_file({**state, "critic.weight": torch.zeros(2)}, tmp_path / "g.safetensors")
    with pytest.raises(WeightError, match=r"unexpected key 'critic\.weight'"):
        Module(**settings).load(CPU)
    z = torch.ones(1, 6)
    images = Module(**settings, prefix="generator.").load(CPU).decode(z)
    assert torch.allclose(images, 2 * network(z) - 1, atol=1e-6)


def test_an_archive_is_code_and_needs_trust(network, tmp_path):
    settings = archive(network, tmp_path / "g.pt")

    def refused(says, **changes):
        with pytest.raises(WeightError, match=re.escape(says)):
            TorchScript(**settings | changes).load(CPU)

    refused("'trust: true'", trust=False)
    refused("trust needs the file's sha256", sha256=None)
    refused("is corrupt or another version", sha256="1" * 64)
    refused("a TorchScript archive (torch.jit.save)", weights=str(tmp_path / "gone.pt"))
    torch.save(network.state_dict(), tmp_path / "state.pt")
    sha256 = hashlib.sha256((tmp_path / "state.pt").read_bytes()).hexdigest()
    refused("is no TorchScript archive", weights=str(tmp_path / "state.pt"), sha256=sha256)


def test_what_does_not_keep_the_contract_is_refused(network, tmp_path):
    path = tmp_path / "g.safetensors"
    for made, name, changes, says in (
        (Gregarious(), "Gregarious", {}, "gives another image where a second one is beside it"),
        (Deaf(), "Deaf", {}, "gives images without a gradient"),
        (network, "Small", {"resolution": 16}, "gives (2, 3, 8, 8) for 2 latents; allowed: (2, 3, 16, 16)"),
        (network, "Small", {"latent": LATENT[:1]}, "fails on latents (2, 4)"),
    ):
        with pytest.raises(WeightError, match=re.escape(says)):
            Module(**module(made.eval(), path, name) | changes).load(CPU)
    settings = module(network, path)
    for changes, says in (
        ({"args": {"depth": 3}}, "does not take these arguments"),
        ({"target": "generators.stated_networks:Smal"}, "has no 'Smal'. Did you mean 'Small'?"),
        ({"target": "generators.stated_networks:number"}, "gives a int, no torch.nn.Module"),
    ):
        with pytest.raises(SuiteError, match=re.escape(says)):
            Module(**settings | changes).load(CPU)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("linear.bias"), "missing key 'linear.bias'"),
        (lambda s: s.update(ghost=torch.zeros(1)), "unexpected key 'ghost'"),
        (
            lambda s: s.update({"linear.bias": torch.zeros(3)}),
            "'linear.bias' has shape (3,), expected (192,)",
        ),
    ],
)
def test_a_key_that_does_not_fit_is_refused_by_name(network, tmp_path, change, says):
    settings = module(network, tmp_path / "g.safetensors")
    state = dict(network.state_dict())
    change(state)
    save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(WeightError, match=re.escape(says)):
        Module(**settings).load(CPU)


def test_latents_that_cannot_be():
    for changes, says in (
        ({"dim": 0}, "dim must be at least 1"),
        ({"dim": 2, "bound": -1.0}, "bound must be positive"),
        ({"dim": 2, "prior": "uniform"}, "'uniform' needs a bound"),
    ):
        with pytest.raises(SuiteError, match=says):
            LatentBlock(**changes)
    for latent, says in (
        ((), "latent needs one or more blocks"),
        ((LATENT[0], LATENT[0]), "of different names"),
        ((LATENT[1],), "needs a block whose role is 'main'"),
    ):
        with pytest.raises(SuiteError, match=says):
            TorchScript(weights="x", latent=latent, resolution=8)


def test_the_code_of_a_module_is_part_of_its_key_and_is_not_run_when_a_run_is_verified(
    network, tmp_path, monkeypatch
):
    place = tmp_path / "code"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    (place / "mine.py").write_text("from generators.stated_networks import number\n\ndef Mine():\n    pass\n")
    settings = module(network, tmp_path / "g.safetensors")
    block = {**settings, "target": "mine:Mine", "latent": [dataclasses.asdict(b) for b in LATENT]}
    named = build_component(Document({}, "f"), "generators", "g", {"kind": "module", **block})
    before = identity.component(named)
    (place / "mine.py").write_text((place / "mine.py").read_text() + "\n# changed\n")
    assert identity.component(named)["source"] != before["source"]
    run = RunStore(tmp_path / "run")
    run.write_run({"suite": {"generators": {"g": named.raw}}})
    with pytest.raises(ResultError, match=r"names code of its own \(generators.g\)"):
        read_suite(run, python=False)
