"""What protocols do to images agrees with the libraries that the public evaluations use."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from inception_files import random_state, write_weights
from PIL import Image

from bench.judges.inception import InceptionJudge
from bench.judges.inception_input import RESIZE, scaled
from bench.protocols import Protocol
from bench.protocols.images import prepared, presented, resized, through_codec
from bench.protocols.shipped import SHIPPED
from bench.protocols.sources import load_under
from bench.samplers.draw import to_uint8
from bench.torchvision_guard import ensure_torchvision
from bench.worlds.coco import Coco, write_coco
from bench.worlds.shapes_source import Shapes

ensure_torchvision()
CPU = torch.device("cpu")
SIZES = [(w, h) for w in (20, 21, 22, 23, 24, 25) for h in (14, 15, 21)]


def pixels(num: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 3, height, width), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_centre_round_crops_as_torchvision_does(size):
    from torchvision.transforms import functional

    image = Image.fromarray(pixels(1, size[1], size[0])[0].transpose(1, 2, 0))
    theirs = functional.center_crop(image, min(image.size))
    assert np.array_equal(prepared(image, "centre-round", None, "bilinear"), theirs)


def test_the_two_crops_are_a_pixel_apart_where_the_margin_is_1_mod_4_less_a_half():
    image = Image.fromarray(pixels(1, 14, 17)[0].transpose(1, 2, 0))  # a margin of 3: 1 or 2 on the left
    left = {crop: np.asarray(prepared(image, crop, None, "bicubic")) for crop in ("centre", "centre-round")}
    whole = np.asarray(image)
    assert np.array_equal(left["centre"], whole[:, 1:15])
    assert np.array_equal(left["centre-round"], whole[:, 2:16])


@pytest.mark.parametrize(
    ("name", "mode"), [("bilinear", "BILINEAR"), ("bicubic", "BICUBIC"), ("lanczos", "LANCZOS")]
)
def test_filters_are_torchvision_s_on_pillow_images(name, mode):
    from torchvision.transforms import InterpolationMode, Resize

    image = Image.fromarray(pixels(1, 40, 40)[0].transpose(1, 2, 0))
    for side in (16, 64):
        theirs = Resize(side, interpolation=InterpolationMode[mode])(image)
        assert np.array_equal(prepared(image, "centre", side, name), theirs)


def test_without_a_crop_the_picture_is_squeezed():
    image = Image.fromarray(pixels(1, 10, 30)[0].transpose(1, 2, 0))
    squeezed = prepared(image, "none", 8, "lanczos")
    assert np.array_equal(squeezed, image.resize((8, 8), Image.Resampling.LANCZOS))
    assert not np.array_equal(squeezed, prepared(image, "centre", 8, "lanczos"))


@pytest.mark.parametrize("quality", [None, 30, 75, 95])
def test_the_codec_is_pillow_s_file_written_and_read(quality, tmp_path):
    images = pixels(2, 24, 24)
    for k, image in enumerate(images):
        options = {} if quality is None else {"quality": quality}
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{k}.jpg", **options)
    files = [np.asarray(Image.open(tmp_path / f"{k}.jpg")).transpose(2, 0, 1) for k in range(2)]
    assert np.array_equal(through_codec(images, f"jpeg-{quality or 75}"), np.stack(files))
    assert through_codec(images, "png") is images


def test_an_image_s_presentation_does_not_depend_on_its_neighbours():
    protocol = Protocol(resolution=24, eval_size=16, codec="jpeg-60")
    images = pixels(5, 24, 24)
    together = presented(images, protocol)
    assert together.shape == (5, 3, 16, 16)
    for k in range(5):
        assert np.array_equal(presented(images[k : k + 1], protocol)[0], together[k])


def test_quantising_by_cutting_off_is_topilimage_s():
    from torchvision.transforms import ToPILImage

    floats = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs = np.stack([np.asarray(ToPILImage()((image + 1.0) / 2.0)) for image in floats])
    assert np.array_equal(to_uint8(floats, "floor").numpy(), theirs.transpose(0, 3, 1, 2))
    darker = to_uint8(floats, "round").numpy().astype(int) - to_uint8(floats, "floor").numpy()
    assert set(np.unique(darker)) == {0, 1}
    assert 0.45 < darker.mean() < 0.55


# --- Inception's input -----------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 299, 400])
def test_inception_s_input_is_that_of_each_library(side):
    from cleanfid.resize import make_resizer

    images = pixels(2, side, side)
    batch = torch.from_numpy(images)
    rows = images.transpose(0, 2, 3, 1)
    clean = make_resizer("PIL", False, "bicubic", (299, 299))
    legacy = make_resizer("PyTorch", False, "bilinear", (299, 299))
    expected = {
        "clean": np.stack([clean(row) for row in rows]),
        "pytorch-fid": np.stack([legacy(row) for row in rows]),
        "t2ibenchmark": np.stack([
            Image.fromarray(row).resize((299, 299), Image.Resampling.BICUBIC) for row in rows
        ]),
    }  # fmt: skip
    for name, theirs in expected.items():
        ours = RESIZE[name](batch)
        assert ours.dtype == torch.float32
        assert np.abs(ours.numpy().transpose(0, 2, 3, 1) - theirs).max() <= 1e-4, name
    if side == 299:
        assert all(torch.allclose(resize(batch), batch.float(), atol=1e-4) for resize in RESIZE.values())
    else:
        small = [resize(batch[:1]).flatten() for resize in RESIZE.values()]
        apart = [(a - b).abs().mean() > 0.1 for i, a in enumerate(small) for b in small[:i]]
        assert all(apart)


def test_scales():
    x = torch.tensor([0.0, 128.0, 255.0])
    assert scaled(x, "tensorflow").tolist() == [-1, 0, 127 / 128]
    assert scaled(x, "symmetric").tolist() == pytest.approx([-1, 256 / 255 - 1, 1], abs=1e-7)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("inception"))


def test_features_under_torch_fidelity_s_protocol_are_its_extractor_s(weights):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    images = pixels(3, 48, 48)
    theirs = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(weights))
    judge = InceptionJudge(weights=str(weights), resize="torch-fidelity", batch_size=3).load(CPU)
    expected = theirs(torch.from_numpy(images))[0].numpy()
    assert expected.std(0).mean() > 0.01
    assert np.abs(judge.readout(images).features - expected).max() <= 1e-6 * expected.max()


def test_the_published_file_s_keys_are_those_of_torchvision_s_inception_with_1008_classes():
    """pytorch-fid builds that network and loads the file into it, so both publish the same keys."""
    from torchvision.models import inception_v3

    with torch.device("meta"):
        network = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    published = {name: tuple(value.shape) for name, value in random_state().items()}
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == published


def test_the_reference_is_read_under_the_protocol_s_geometry(tmp_path):
    """side_by_side/tr0n_fid.py, on 12 + 12 images: features as the public evaluator's to 3.5e-7."""
    root = tmp_path / "data"
    write_coco(root, "val2014", pixels(2, 21, 33), [("a",), ("b",)], ids=[4, 2])
    protocol = Protocol(**{**SHIPPED["tr0n-2023"], "eval_size": 16})
    source = Coco(root=str(root), resolution=24)
    images = load_under(source, tmp_path, protocol)
    from torchvision.transforms import Resize, functional

    for row, image_id in enumerate((2, 4)):
        image = Image.open(root / "val2014" / f"COCO_val2014_{image_id:012d}.png")
        theirs = Resize(16)(functional.center_crop(image, min(image.size)))
        assert np.array_equal(images.images([row])[0].transpose(1, 2, 0), theirs)
    others = [
        Protocol(eval_size=16), Protocol(eval_size=16, crop="none"), Protocol(resolution=24),
        Protocol(eval_size=16, resize_filter="lanczos"),
    ]  # fmt: skip
    digests = {load_under(source, tmp_path, item).manifest_sha256 for item in (protocol, *others)}
    assert len(digests) == 1 + len(others)
    assert (
        load_under(source, tmp_path, others[2]).manifest_sha256
        == source.load("val", tmp_path).manifest_sha256
    )


def test_a_world_of_another_size_is_resized(tmp_path):
    source = Shapes(num_val=3)
    small = load_under(source, tmp_path, Protocol(eval_size=16))
    plain = load_under(source, tmp_path, Protocol())
    assert np.array_equal(small.images([2, 0]), resized(plain.images([2, 0]), 16, "bicubic"))
    assert (small.ids, small.captions) == (plain.ids, plain.captions)
    assert small.manifest_sha256 != plain.manifest_sha256


def test_jpeg_files_of_the_reference_stay_as_they_are(tmp_path):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels(1, 16, 16)[0].transpose(1, 2, 0))
    image.save(buffer, "JPEG")
    write_coco(tmp_path / "data", "val2014", pixels(1, 16, 16), [("a",)], codec="jpg")
    path = next((tmp_path / "data" / "val2014").iterdir())
    path.write_bytes(buffer.getvalue())
    loaded = load_under(Coco(root=str(tmp_path / "data"), resolution=16), tmp_path, Protocol(eval_size=16))
    assert np.array_equal(loaded.images([0])[0].transpose(1, 2, 0), Image.open(buffer))
