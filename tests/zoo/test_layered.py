"""The layered generator and its training: layers, independence, stages that resume where they stopped."""

from __future__ import annotations

import math

import pytest
import torch

from bench.zoo import training
from bench.zoo.layered import CODES, PARTS, LayeredGenerator, Painter
from bench.zoo.layered_recipe import LayeredAutoencoderTraining, LayeredGanTraining
from bench.zoo.train import load_checkpoint, save_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def generator() -> LayeredGenerator:
    torch.manual_seed(0)
    return LayeredGenerator(y_dim=4, num_classes=6).eval()


def test_an_image_is_an_object_of_one_color_on_a_backdrop_of_one(generator):
    codes = torch.randn(50, sum(CODES.values()))
    images = generator.painter(codes)
    assert images.shape == (50, 3, 32, 32)
    assert float(images.detach().abs().max()) <= 1
    backdrop, color = torch.tanh(codes[:, :3]), torch.tanh(codes[:, 3:6])
    share = (images - backdrop[:, :, None, None]) / (color - backdrop)[:, :, None, None]
    assert torch.allclose(share[:, 0], share[:, 1], atol=1e-2)  # one mask for all three channels
    assert float(share.detach().min()) > -1e-3
    assert float(share.detach().max()) < 1 + 1e-3


def test_the_outline_begins_as_a_disc_in_its_place():
    torch.manual_seed(0)
    codes = torch.zeros(1, sum(CODES.values()))
    codes[:, 3:6] = 3.0
    place = sum(list(CODES.values())[:2])
    codes[:, place : place + 2] = torch.atanh(torch.tensor([0.25, -0.5]))
    inside = Painter()(codes)[0, 0] > 0.5
    area = math.pi * (0.8 * 0.45 * 16) ** 2
    assert int(inside.sum()) == pytest.approx(area, rel=0.15)
    rows, columns = torch.nonzero(inside, as_tuple=True)
    assert float(columns.float().mean()) == pytest.approx(15.5 + 0.25 * 16, abs=0.7)
    assert float(rows.float().mean()) == pytest.approx(15.5 - 0.5 * 16, abs=0.7)


def test_samples_never_meet_and_every_part_of_the_latent_matters(generator):
    latent = torch.randn(7, generator.z_dim + generator.y_dim, requires_grad=True)
    images = generator(latent)
    alone = torch.cat([generator(row[None]) for row in latent])
    assert torch.allclose(images, alone, atol=1e-5)
    (gradient,) = torch.autograd.grad(images[3].square().sum(), latent)
    assert not gradient[[0, 1, 2, 4, 5, 6]].any()
    for part in gradient[3].split([*PARTS.values(), generator.y_dim]):
        assert part.abs().max() > 0


def test_the_class_speaks_to_color_and_outline_alone(generator):
    z = torch.randn(1, generator.z_dim).expand(2, -1)
    codes = generator.codes(torch.cat([z, generator.embedding.weight[:2]], dim=1))
    parts = dict(zip(CODES, codes.split(list(CODES.values()), dim=1)))
    for name in ("backdrop", "place"):
        assert torch.equal(parts[name][0], parts[name][1])
    for name in ("color", "outline"):
        assert not torch.equal(parts[name][0], parts[name][1])


@pytest.mark.parametrize("stop", [1, 3])
def test_a_training_stopped_ends_where_a_whole_one_ends(stop, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "NUM_SHAPES", 100)

    def new() -> LayeredGanTraining:
        return LayeredGanTraining(3, CPU, 4, data="shapes", classes=True, autoencoder="shapes-autoencoder")

    whole, first, second = new(), new(), new()
    for t in range(4):
        whole.step(t)
    for t in range(stop):
        first.step(t)
    save_checkpoint(first, tmp_path / "c.pt", stop)
    for t in range(load_checkpoint(second, tmp_path / "c.pt"), 4):
        second.step(t)
    for key, value in whole.export().state_dict().items():
        assert torch.equal(value, second.export().state_dict()[key]), key


def test_mapping_networks_learn_the_codes_of_real_images(monkeypatch):
    """After some steps drawn codes have the real ones' mean and spread, which they lack at first."""
    monkeypatch.setattr(training, "NUM_SHAPES", 500)
    own = LayeredGanTraining(3, CPU, 200, data="shapes", classes=False, autoencoder="shapes-autoencoder")

    def spread() -> torch.Tensor:
        with torch.no_grad():
            return own.model.standard(own.model.codes(own.draw(500, own.generator(1))[0])).std(0)

    before = spread()
    for t in range(200):
        own.step(t)
    assert float(before.max()) < 0.5
    assert float((spread() - 1).abs().mean()) < 0.5 * float((before - 1).abs().mean())


def test_the_autoencoder_learns_from_images_alone(monkeypatch):
    monkeypatch.setattr(training, "NUM_SHAPES", 300)
    own = LayeredAutoencoderTraining(3, CPU, 300, data="shapes")
    errors = [float(own.step(t)["error"]) for t in range(60)]
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])
