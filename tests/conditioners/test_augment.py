"""DiffAugment views against a reference written copy by copy from the published description."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bench.conditioners.augment import augment, resize_matrix, translation_matrix
from bench.streams import Streams

POLICY = ("color", "translation", "resize", "cutout")


def reference_view(image: torch.Tensor, draws: dict[str, torch.Tensor]) -> torch.Tensor:
    """One augmented copy (C, H, H), step by step, with slices, interpolate and index fill."""
    size = image.shape[-1]
    x = image + (draws["brightness"] - 0.5)
    mean = x.mean(dim=0, keepdim=True)
    x = (x - mean) * (2 * draws["saturation"]) + mean
    mean = x.mean()
    x = (x - mean) * (draws["contrast"] + 0.5) + mean
    dy, dx = draws["shift"].tolist()
    moved = torch.zeros_like(x)
    for i in range(size):
        for j in range(size):
            if 0 <= i + dy < size and 0 <= j + dx < size:
                moved[:, i, j] = x[:, i + dy, j + dx]
    side = int(float(draws["ratio"]) * size)
    y = F.interpolate(moved[None], (side, side), mode="bilinear", align_corners=False)[0]
    if side < size:
        left = int((size - side) / 2)
        y = F.pad(y, (left, size - side - left, left, size - side - left))
    else:
        start = int((side - size) / 2)
        y = y[:, start : start + size, start : start + size]
    hole = int(size * 0.5 + 0.5)
    cy, cx = draws["center"].tolist()
    top, left = max(cy - hole // 2, 0), max(cx - hole // 2, 0)
    y = y.clone()
    y[:, top : max(cy - hole // 2 + hole, 0), left : max(cx - hole // 2 + hole, 0)] = 0
    return y


@pytest.mark.parametrize("size", [16, 17])
def test_every_view_equals_the_reference(size):
    views, num, step = 3, 4, 5
    streams = Streams.from_seed(num, "augment-test", size)
    images = torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours = augment(images, streams, step, views, POLICY).view(num, views, 3, size, size)
    reach = int(size / 8 + 0.5)
    hole = int(size * 0.5 + 0.5)
    uniforms = {
        n: streams.uniform(f"augment:{n}", (views,), step) for n in ("brightness", "saturation", "contrast")
    }
    shifts = streams.integers("augment:translation", 2 * reach + 1, (views, 2), step) - reach
    ratio = 0.8 + 0.4 * streams.uniform("augment:resize", (), step)
    centers = streams.integers("augment:cutout", size + (1 - hole % 2), (views, 2), step)
    for i in range(num):
        for a in range(views):
            draws = {name: values[i, a] for name, values in uniforms.items()}
            draws |= {"shift": shifts[i, a], "ratio": ratio[i], "center": centers[i, a]}
            assert torch.allclose(ours[i, a], reference_view(images[i], draws), atol=1e-5)


def test_draws_cover_their_ranges():
    streams = Streams.from_seed(2000, "ranges")
    shifts = streams.integers("augment:translation", 9, (1, 2)) - 4
    assert set(shifts.flatten().tolist()) == set(range(-4, 5))
    centers = streams.integers("augment:cutout", 33, (1, 2))
    assert set(centers.flatten().tolist()) == set(range(33))


def test_a_view_depends_on_its_own_stream_alone():
    streams = Streams.from_seed(5, "own")
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    together = augment(images, streams, 2, 4, POLICY).view(5, 4, 3, 16, 16)
    alone = augment(images[3:4], streams[3:4], 2, 4, POLICY)
    assert torch.equal(together[3], alone)
    assert not torch.equal(together, augment(images, streams, 3, 4, POLICY).view_as(together))


@settings(deadline=None, max_examples=60)
@given(ratio=st.floats(0.8, 1.2), size=st.integers(8, 40))
def test_the_resize_matrix_is_interpolate_with_pad_or_crop(ratio, size):
    ratio32 = torch.tensor([ratio], dtype=torch.float32)
    side = int(ratio32.double().item() * size)
    row = torch.rand(size, generator=torch.Generator().manual_seed(size))
    y = F.interpolate(row.view(1, 1, 1, size), (1, side), mode="bilinear", align_corners=False).flatten()
    if side < size:
        left = int((size - side) / 2)
        y = F.pad(y, (left, size - side - left))
    else:
        start = int((side - size) / 2)
        y = y[start : start + size]
    assert torch.allclose(resize_matrix(ratio32, size)[0] @ row, y, atol=1e-5)


@given(shift=st.integers(-6, 6))
def test_the_translation_matrix_shifts_and_fills_with_zero(shift):
    row = torch.arange(1.0, 7.0)
    moved = translation_matrix(torch.tensor([shift]), 6)[0] @ row
    expected = [row[i + shift].item() if 0 <= i + shift < 6 else 0.0 for i in range(6)]
    assert moved.tolist() == expected


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square"):
        augment(torch.zeros(1, 3, 8, 9), Streams.from_seed(1, "x"), 0, 1, POLICY)
