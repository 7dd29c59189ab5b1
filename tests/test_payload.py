"""Images as bytes: one file each, or many below each other."""

from __future__ import annotations

import numpy as np
import pytest

from bench import payload


def images(num: int, size: int = 6) -> np.ndarray:
    return np.random.default_rng(num).integers(0, 256, (num, 3, size, size + 1), dtype=np.uint8)


@pytest.mark.parametrize("num", [1, 5, 7])
def test_images_come_back_as_they_were(num, monkeypatch):
    monkeypatch.setattr(payload, "SHEET_PIXELS", 3 * 6 * 7)  # three images a sheet
    stack = images(num)
    single, together = payload.encode_pngs(stack), payload.encode_pngs(stack, together=True)
    assert len(list(payload.png_files(single))) == num
    assert len(list(payload.png_files(together))) == -(-num // 3)
    for arrays in (single, together):
        assert np.array_equal(payload.decode_pngs(payload.unpack(payload.pack(arrays))[0]), stack)


def test_images_larger_than_a_sheet_get_a_file_each(monkeypatch):
    monkeypatch.setattr(payload, "SHEET_PIXELS", 10)
    arrays = payload.encode_pngs(images(3), together=True)
    assert len(arrays["png_end"]) == 3
    assert np.array_equal(payload.decode_pngs(arrays), images(3))


def test_snapshots_come_back_in_the_order_of_their_steps_also_from_files_of_one_image_each():
    snapshots = {"0": images(4), "5": images(3), "20": images(2)}
    old = {
        f"{step}/{name}": values
        for step, stack in snapshots.items()
        for name, values in payload.encode_pngs(stack).items()
    }
    for arrays in (payload.encode_steps(snapshots), old):
        found = payload.decode_steps(payload.unpack(payload.pack(arrays))[0])
        assert list(found) == ["0", "5", "20"]
        assert all(np.array_equal(found[step], snapshots[step]) for step in snapshots)
