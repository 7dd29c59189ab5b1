"""DINOv2, LPIPS, AugCLIP, pixels and Inception logits: against their packages, on files of their format.

Beside facebookresearch/dinov2's own network at random weights (tests/side_by_side/dinov2.py) features are
the same to the bit for ViT-S/14, ViT-B/14 and the giant's layout; resizing positions plainly would be off by
9e-5.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from inception_files import write_weights
from torch.nn import functional as F

from bench.conditioners.augment import augment
from bench.errors import WeightError
from bench.judges.aug_clip import POLICY, AugClipJudge
from bench.judges.clip import ClipJudge
from bench.judges.dinov2 import DinoV2Judge, DinoV2Reader, dinov2, official_positions, pillow_bicubic
from bench.judges.inception import InceptionJudge
from bench.judges.lpips import LpipsJudge
from bench.judges.pixels import PixelsJudge, label_code
from bench.metrics.clip_score import AugClip
from bench.streams import Streams
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition, Evidence
from bench.worlds.shapes_source import Shapes

ensure_torchvision()
CPU = torch.device("cpu")
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return Shapes().make("val", 0, 6, CPU)[0].numpy()


def dinov2_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """In the official layout of a small ViT: positions of 37 x 37 patches, and a mask token."""
    import timm

    torch.manual_seed(seed)
    network = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=False, img_size=518, num_classes=0, **SMALL
    )
    state = {key: torch.randn(value.shape) * 0.2 for key, value in network.state_dict().items()}
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 48)
    return {**state, "mask_token": torch.zeros(1, 48)}


def test_dinov2_reads_the_official_layout_and_is_blind_to_neighbours(images):
    network = dinov2("vit_small_patch14_dinov2", dinov2_state(), "x.pth", **SMALL)
    reader = DinoV2Reader(network, CPU, 4, "DINOv2 small")
    together, alone = reader.readout(images).features, reader.readout(images[4:5]).features
    assert together.shape == (6, 48)
    assert np.array_equal(together[4:5], alone)
    assert reader.readout(images).extractor == "DINOv2 small"
    assert np.abs(together - together.mean(0)).max() > 0.01


def test_positions_follow_the_official_factor_and_not_a_plain_resize():
    grid = torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))
    found = official_positions(grid, 16)
    square = grid[:, 1:].reshape(1, 37, 37, 8).permute(0, 3, 1, 2)
    plain = F.interpolate(square, size=(16, 16), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 256, 8)
    assert found.shape == (1, 257, 8)
    assert torch.equal(found[:, :1], grid[:, :1])
    assert (found[:, 1:] - plain).abs().max() > 0.001
    assert torch.equal(official_positions(found, 16), found)


def test_a_wrong_or_missing_dinov2_file_is_told_by_key(tmp_path):
    with pytest.raises(WeightError, match=r"dinov2_vitl14_pretrain\.pth"):
        DinoV2Judge(weights=str(tmp_path / "gone.pth")).load(CPU)
    state = dinov2_state()
    del state["blocks.1.ls1.gamma"]
    with pytest.raises(WeightError, match=r"blocks\.1\.ls1\.gamma"):
        dinov2("vit_small_patch14_dinov2", state, "x.pth", **SMALL)


def test_pillow_resizes_as_torchvision_does(images):
    from torchvision.transforms.functional import InterpolationMode, pil_to_tensor, resize, to_pil_image

    batch = torch.from_numpy(images)
    theirs = [
        pil_to_tensor(resize(to_pil_image(image), [224, 224], InterpolationMode.BICUBIC)) for image in batch
    ]
    assert torch.equal(pillow_bicubic(batch, 224), torch.stack(theirs))


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory) -> Path:
    from torchvision.models import alexnet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(alexnet(weights=None).state_dict(), path)
    return path


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained'", "ignore:Arguments other than a weight enum")
def test_squared_distances_of_lpips_features_are_the_packages_lpips(alexnet, images):
    judge = LpipsJudge(weights=str(alexnet), side=None, batch_size=4).load(CPU)
    features = judge.readout(images).features.astype(np.float64)
    x = torch.from_numpy(images).float() / 127.5 - 1
    theirs = judge.network(x[:3], x[3:]).flatten().numpy()
    ours = np.square(features[:3] - features[3:]).sum(1)
    assert theirs.min() > 0.001
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert np.array_equal(judge.readout(images[2:3]).features[0].astype(np.float64), features[2])


def test_an_lpips_backbone_of_another_network_is_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "x.pth")
    with pytest.raises(WeightError, match="alex"):
        LpipsJudge(weights=str(tmp_path / "x.pth")).load(CPU)


def test_aug_clip_is_the_mean_cosine_over_views_and_depends_on_the_image_alone(images):
    config = AugClipJudge(views=6, batch_size=12)
    judge, plain = config.load(CPU), ClipJudge(batch_size=12).load(CPU)
    conditions = [Condition(id=str(i), kind="text", text=f"a red circle {i % 2}") for i in range(6)]
    seen = judge.readout(images, conditions)
    assert np.array_equal(seen.image_embedding, plain.readout(images, conditions).image_embedding)
    order = [5, 2, 0, 1, 4, 3]
    again = judge.readout(images[order], [conditions[i] for i in order])
    assert np.array_equal(seen.view_embedding[order], again.view_embedding)

    result = AugClip(judge="j").compute(
        Evidence(conditions=tuple(conditions), readouts={"j": seen}, reference={})
    )
    captured: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:

        def kept(x: torch.Tensor, streams: Streams, *rest):
            captured.append(augment(x, streams, *rest))
            return captured[-1]

        patch.setattr("bench.judges.aug_clip.augment", kept)
        judge.readout(images, conditions)
    network, each = plain.network, []
    for i, views in enumerate(torch.cat(captured).split(6)):
        x = (views + 1) / 2 - torch.tensor(network.image_mean)[:, None, None]
        e = F.normalize(
            network.encode_image(x / torch.tensor(network.image_std)[:, None, None]).float(), dim=1
        )
        each.append(float((e @ torch.from_numpy(seen.text_embedding[i])).mean()))
    assert result.per_sample["aug-clip"] == pytest.approx(each, abs=1e-5)
    assert result.scores[0].value == pytest.approx(np.mean(each), abs=1e-5)
    assert result.scores[0].details["views"] == 6
    assert config.augmentations == POLICY


def test_pixels_keep_images_and_labels(images):
    judge = PixelsJudge(side=32).load(CPU)
    conditions = [Condition(id=str(i), kind="class", labels={"shape": "ab"[i % 2]}) for i in range(6)]
    seen = judge.readout(images, conditions)
    assert np.array_equal(seen.pixels, images)
    assert seen.labels["shape"].tolist() == [label_code("ab"[i % 2]) for i in range(6)]
    half = PixelsJudge(side=16).load(CPU).readout(images)
    assert half.pixels.shape == (6, 3, 16, 16)
    assert abs(float(half.pixels.mean()) - float(images.mean())) < 2
    assert half.labels == {}


def test_inception_logits_are_torch_fidelitys(tmp_path, images):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = str(write_weights(tmp_path))
    wanted = FeatureExtractorInceptionV3(
        "x", ["2048", "logits_unbiased", "logits"], feature_extractor_weights_path=path
    )
    theirs = [each.numpy() for each in wanted(torch.from_numpy(images[:2]))]
    for name, expected in (("unbiased", theirs[1]), ("biased", theirs[2])):
        judge = InceptionJudge(weights=path, resize="torch-fidelity", logits=name, batch_size=2).load(CPU)
        seen = judge.readout(images[:2])
        assert np.abs(seen.features - theirs[0]).max() <= 1e-5 * np.abs(theirs[0]).max()
        assert np.abs(seen.logits["inception"] - expected).max() <= 1e-5 * np.abs(expected).max()
