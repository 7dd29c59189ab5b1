"""BigGAN-deep in its published format: config.json, a state dict, and statistics by truncation.

Beside the public network at random weights and real size (tests/side_by_side/biggan.py --cases 1
--samples 1), the largest difference of a layer's output, relative to its largest value, was 9.1e-7 at
128 px, 9.3e-7 at 256 px and 1.2e-6 at 512 px; images differed by at most 7.3e-7.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from generators.biggan_files import SMALL_DEEP, deep_files, deep_shapes, random_state
from torch.nn import functional as F

from bench.errors import SuiteError, WeightError
from bench.generators.biggan.deep import BigGanDeep
from bench.generators.biggan.deep_network import Architecture, as_json, statistics_at
from bench.identity import weight_hashes
from bench.streams import Streams

CPU = torch.device("cpu")


def config(files, **fields) -> BigGanDeep:
    return BigGanDeep(**{"weights": str(files[0]), "config": str(files[1]), "resolution": 128, **fields})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return deep_files(tmp_path_factory.mktemp("deep"))


@pytest.fixture(scope="module")
def generator(files):
    return config(files, truncation=0.4).load(CPU)


def latents(generator, num: int, seed: str = "z") -> torch.Tensor:
    return generator.latent.prior(Streams.from_seed(num, seed))


class Reference:
    """The generator in float64 from the published state dict, with torch's own spectral norm as its truth."""

    def __init__(self, state, about: dict, row: int):
        self.state = {key: value.double() for key, value in state.items()}
        self.about, self.row = about, row

    def weight(self, name: str) -> torch.Tensor:
        """What torch.nn.utils.spectral_norm computes in evaluation mode from the stored three tensors."""
        w = self.state[f"{name}.weight_orig"]
        outputs, inputs = w.shape[0], w.flatten(1).shape[1]
        layer = torch.nn.utils.spectral_norm(torch.nn.Linear(inputs, outputs, bias=False).double()).eval()
        layer.load_state_dict(
            {
                "weight_orig": w.flatten(1),
                "weight_u": self.state[f"{name}.weight_u"],
                "weight_v": self.state[f"{name}.weight_v"],
            }
        )
        return layer(torch.eye(inputs, dtype=torch.float64)).T.reshape(w.shape)

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight(name)
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def standard(self, name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var = (self.state[f"{name}.running_{part}"][self.row] for part in ("means", "vars"))
        return (x - mean[:, None, None]) / (var[:, None, None] + self.about["eps"]).sqrt()

    def norm(self, name: str, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        gain, bias = 1 + c @ self.weight(f"{name}.scale").T, c @ self.weight(f"{name}.offset").T
        return (self.standard(name, x) * gain[:, :, None, None] + bias[:, :, None, None]).relu()

    def attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        query = self.conv(f"{name}.snconv1x1_theta", x).reshape(n, -1, h * w)
        key, value = (
            F.max_pool2d(self.conv(f"{name}.snconv1x1_{part}", x), 2).reshape(n, -1, h * w // 4)
            for part in ("phi", "g")
        )
        share = torch.einsum("ncq,nck->nqk", query, key).softmax(2)
        mixed = torch.einsum("nqk,nck->ncq", share, value).reshape(n, -1, h, w)
        return x + self.state[f"{name}.gamma"] * self.conv(f"{name}.snconv1x1_o_conv", mixed)

    def block(self, name: str, x: torch.Tensor, c: torch.Tensor, up: bool, after: int) -> torch.Tensor:
        def double_side(a: torch.Tensor) -> torch.Tensor:
            return a.repeat_interleave(2, 2).repeat_interleave(2, 3) if up else a

        h = self.conv(f"{name}.conv_0", self.norm(f"{name}.bn_0", x, c))
        h = self.conv(f"{name}.conv_1", double_side(self.norm(f"{name}.bn_1", h, c)))
        h = self.conv(f"{name}.conv_2", self.norm(f"{name}.bn_2", h, c))
        h = self.conv(f"{name}.conv_3", self.norm(f"{name}.bn_3", h, c))
        return h + double_side(x[:, :after])

    def __call__(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        width, c = self.about["channel_width"], torch.cat([z, y], 1).double()
        x = c @ self.weight("generator.gen_z").T + self.state["generator.gen_z.bias"]
        x = x.reshape(len(c), 4, 4, 16 * width).permute(0, 3, 1, 2)
        position = 0
        for i, (up, _, after) in enumerate(self.about["layers"]):
            if i == self.about["attention_layer_position"]:
                x = self.attend(f"generator.layers.{position}", x)
                position += 1
            x = self.block(f"generator.layers.{position}", x, c, up, width * after)
            position += 1
        gain, bias = self.state["generator.bn.weight"], self.state["generator.bn.bias"]
        x = (self.standard("generator.bn", x) * gain[:, None, None] + bias[:, None, None]).relu()
        return self.conv("generator.conv_to_rgb", x)[:, :3].tanh()


def test_the_published_format_gives_the_reference_images(files, generator):
    z = latents(generator, 2)
    with torch.no_grad():
        image = generator.decode(z)
        truth = Reference(torch.load(files[0]), SMALL_DEEP, row=20)(z[:, :128], z[:, 128:])
    assert image.shape == (2, 3, 128, 128)
    assert truth.std() > 0.1
    assert (image - truth).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("resolution", "stated", "size_mib"), [(128, 50.4, 201), (256, 55.9, 224), (512, 56.2, 225)]
)
def test_the_built_in_architectures_have_the_published_size(resolution, stated, size_mib):
    """Millions of parameters, and size of the file, as the publisher's README states them."""
    shapes = deep_shapes(as_json(Architecture.published(resolution)))
    buffers = ("weight_u", "weight_v", "running_means", "running_vars")
    count = sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(buffers))
    assert round(count / 1e6, 1) == stated
    assert math.prod(shapes["embeddings.weight"]) == 128 * 1000
    assert sum(map(math.prod, shapes.values())) * 4 / 2**20 == pytest.approx(size_mib, abs=1)


def test_the_truncation_picks_its_statistics():
    table = torch.arange(51.0)[:, None].expand(51, 3)
    for row in range(51):  # every multiple of 1/50, whatever binary fractions make of it
        assert statistics_at(table, row / 50).tolist() == [row] * 3
        assert statistics_at(table, row * 0.02).tolist() == [row] * 3
    # between rows the published weights: the lower row by the distance from it
    assert statistics_at(table, 0.405).tolist() == pytest.approx([0.25 * 20 + 0.75 * 21] * 3, rel=1e-5)


def test_another_truncation_gives_other_images_and_noise(files, generator):
    wide = config(files, truncation=1.0).load(CPU)
    z = latents(generator, 1)
    with torch.no_grad():
        assert (wide.decode(z) - generator.decode(z)).abs().max() > 0.1
    streams = Streams.from_seed(50, "noise")
    narrow_z, wide_z = (g.latent.prior(streams)[:, :128] for g in (generator, wide))
    assert torch.equal(narrow_z, (0.4 * wide_z))
    assert narrow_z.abs().max() <= 0.8


def test_class_embeddings_are_the_columns_of_the_table(files, generator):
    table = torch.load(files[0])["embeddings.weight"]
    y = generator.latent.numbered(Streams.from_seed(9, "y"), 5)[:, 128:]
    assert torch.equal(y, table.T[(5 + torch.arange(9)) % 7])


@pytest.mark.parametrize(
    "key",
    [
        "embeddings.weight",
        "generator.gen_z.weight_u",
        "generator.layers.8.snconv1x1_o_conv.weight_v",
        "generator.layers.8.gamma",
        "generator.layers.9.bn_2.running_vars",
        "generator.layers.0.bn_1.offset.weight_orig",
        "generator.layers.10.conv_3.bias",
        "generator.bn.weight",
        "generator.conv_to_rgb.weight_orig",
    ],
)
def test_a_missing_misshaped_or_extra_key_is_refused_by_name(files, tmp_path, key):
    state = torch.load(files[0])
    value = state.pop(key)
    wrong = tmp_path / "model.bin"
    torch.save(state, wrong)
    with pytest.raises(WeightError, match=f"missing key '{key}'"):
        config((wrong, files[1])).load(CPU)
    torch.save({**state, key: torch.zeros(*value.shape, 2)}, wrong)
    with pytest.raises(WeightError, match=f"'{key}' has shape"):
        config((wrong, files[1])).load(CPU)
    torch.save({**state, key: value, "extra": torch.zeros(1)}, wrong)
    with pytest.raises(WeightError, match="unexpected key 'extra'"):
        config((wrong, files[1])).load(CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_dim": 256}, "output_dim is 256, but its layers make 128 px"),
        ({"n_stats": "many"}, "n_stats: Input should be a valid integer"),
        ({"heads": 8}, "heads: "),
        ({"attention_layer_position": 10}, "attention_layer_position is 10, but there are 10 layers"),
        ({"channel_width": 16}, "does not fit BigGAN-deep"),
    ],
)
def test_a_config_that_cannot_be_is_refused(files, tmp_path, change, message):
    about = tmp_path / "config.json"
    about.write_text(json.dumps({**SMALL_DEEP, **change}))
    with pytest.raises(WeightError, match=message):
        config((files[0], about)).load(CPU)


def test_config_and_suite_must_agree_and_the_file_must_be_json(files, tmp_path):
    with pytest.raises(WeightError, match="output_dim is 128, but the suite says resolution 512"):
        config(files, resolution=512).load(CPU)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightError, match="cannot be read as JSON"):
        config((files[0], tmp_path / "config.json")).load(CPU)
    with pytest.raises(SuiteError, match="truncation must be in"):
        config(files, truncation=0.0)


def test_missing_files_say_where_the_public_gets_them(files, tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(WeightError, match=r"biggan-deep-128-pytorch_model\.bin.*about 201 MiB"):
        config((gone, files[1])).load(CPU)
    with pytest.raises(WeightError, match=r"biggan-deep-128-config\.json.*correct 'config'"):
        config((files[0], gone)).load(CPU)


def test_both_files_are_part_of_a_results_identity(files):
    assert len(weight_hashes(config(files))) == 2


def test_a_sample_does_not_see_its_neighbours(generator):
    z = latents(generator, 3)
    with torch.no_grad():
        together = generator.decode(z)
        alone = torch.cat([generator.decode(row) for row in z.split(1)])
        spoiled = z.clone()
        spoiled[0] = torch.nan
        beside = generator.decode(spoiled)
    assert (together - alone).abs().max() < 1e-5
    assert torch.equal(beside[1:], together[1:])


def test_the_gradient_reaches_every_coordinate_of_the_latent(files):
    double = config(files).load(CPU)
    double.network.double()
    z = latents(double, 1).double().requires_grad_()
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 3, 128, 128, generator=g, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((double.decode(z) * weight).sum(), z)
    assert (gradient != 0).all()
    v, h = torch.randn(z.shape, generator=g, dtype=torch.float64), 1e-7
    with torch.no_grad():
        ends = [(double.decode(z + sign * h * v) * weight).sum() for sign in (1, -1)]
    assert float((ends[0] - ends[1]) / (2 * h)) == pytest.approx(float((gradient * v).sum()), rel=1e-4)


def test_the_state_dict_is_random_in_every_key():
    state = random_state(deep_shapes(SMALL_DEEP))
    assert all(value.std() > 0 for value in state.values() if value.numel() > 1)
