"""The counter-based streams: published vectors, independence of batches, distributions."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.streams import AHEAD, NormalsAhead, Streams, hash64, philox4x32


def _philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    words = philox4x32(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    return [int(word) for word in words]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    assert _philox(counter, key) == expected


@given(st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6))
@settings(max_examples=50, deadline=None)
def test_philox_agrees_with_unbounded_integers(words):
    c, k = words[:4], words[4:]
    expected_c, expected_k = list(c), list(k)
    for _ in range(10):
        p0, p1 = expected_c[0] * 0xD2511F53, expected_c[2] * 0xCD9E8D57
        expected_c = [
            (p1 >> 32) ^ expected_c[1] ^ expected_k[0],
            p1 % 2**32,
            (p0 >> 32) ^ expected_c[3] ^ expected_k[1],
            p0 % 2**32,
        ]
        expected_k = [(expected_k[0] + 0x9E3779B9) % 2**32, (expected_k[1] + 0xBB67AE85) % 2**32]
    assert _philox(tuple(c), tuple(k)) == expected_c


DRAWS = {
    "normal": lambda streams: streams.normal("use", (3, 5), step=4),
    "uniform": lambda streams: streams.uniform("use", (3, 5), step=4),
    "integers": lambda streams: streams.integers("use", 1000, (3, 5), step=4),
    "copies": lambda streams: streams.repeat_interleave(2).normal("use", (7,)).reshape(len(streams), 2, 7),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_draw_depends_on_no_neighbour_and_no_order(draw):
    streams = Streams.from_seed(20, "seed", 7)
    whole = draw(streams)
    alone = torch.cat([draw(streams[i : i + 1]) for i in range(20)])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole, alone)
    assert torch.equal(whole[order], draw(streams[order]))


def test_from_seed_gives_the_same_stream_for_any_count_and_start():
    whole = Streams.from_seed(100, "a", 1).keys
    assert torch.equal(whole[:10], Streams.from_seed(10, "a", 1).keys)
    assert torch.equal(whole[40:90], Streams.from_seed(50, "a", 1, start=40).keys)
    assert len(set(whole.tolist())) == 100
    assert int(whole.min()) >= 0
    assert not set(whole.tolist()) & set(Streams.from_seed(100, "a", 2).keys.tolist())


def test_purpose_step_and_key_each_change_the_draw():
    streams = Streams.from_seed(1, 0)
    draws = [
        streams.normal("a", (8,)),
        streams.normal("b", (8,)),
        streams.normal("a", (8,), step=1),
        Streams.from_seed(1, 1).normal("a", (8,)),
    ]
    for i, left in enumerate(draws):
        for right in draws[i + 1 :]:
            assert not torch.isclose(left, right).any()


def test_a_longer_draw_starts_with_the_shorter_one():
    streams = Streams.from_seed(4, "prefix")
    assert torch.equal(streams.normal("a", (9,))[:, :5], streams.normal("a", (5,)))
    assert torch.equal(streams.uniform("a", (9,))[:, :5], streams.uniform("a", (5,)))


def test_copies_share_no_stream_with_another_copy_or_another_sample():
    streams = Streams.from_seed(50, "copies")
    keys = streams.repeat_interleave(8).keys.tolist()
    assert len(set(keys)) == 400
    assert not set(keys) & set(streams.keys.tolist())
    assert min(keys) >= 0


def test_keys_must_be_a_vector():
    with pytest.raises(ValueError, match=r"shape \(N,\)"):
        Streams(torch.zeros(2, 2, dtype=torch.int64))


def test_a_shape_may_be_empty_or_scalar():
    streams = Streams.from_seed(3, 0)
    assert streams.normal("a").shape == (3,)
    assert streams.normal("a", (0,)).shape == (3, 0)
    assert streams[:0].uniform("a", (4,)).shape == (0, 4)


def test_normals_follow_the_standard_normal_law():
    sample = Streams.from_seed(400, "law").normal("x", (500,)).double().numpy()
    flat = sample.ravel()
    error = 1 / math.sqrt(flat.size)
    assert abs(flat.mean()) < 4 * error
    assert abs(flat.var() - 1) < 4 * math.sqrt(2) * error
    assert abs(stats.skew(flat)) < 4 * math.sqrt(6) * error
    assert abs(stats.kurtosis(flat)) < 4 * math.sqrt(24) * error
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    # Across samples at one position, too: keys of one seed lie a constant step apart.
    assert stats.kstest(sample[:, 0], "norm").pvalue > 1e-3
    correlation = np.corrcoef(sample[:, :40], rowvar=False) - np.eye(40)
    assert np.abs(correlation).max() < 5 / math.sqrt(400)


@settings(deadline=None, max_examples=40)
@given(num=st.integers(1, 40), dim=st.integers(1, 70), steps=st.integers(1, 30))
def test_normals_of_many_steps_are_bit_for_bit_those_of_each(num, dim, steps):
    streams = Streams.from_seed(num, "ahead", dim)
    ahead = NormalsAhead(streams, "langevin", (1, dim), steps)
    for t in range(steps):
        assert torch.equal(ahead(t), streams.normal("langevin", (1, dim), t))


def test_normals_are_drawn_ahead_in_parts_that_fit():
    streams = Streams.from_seed(2, "ahead")
    dim = AHEAD // 6  # three steps at once
    ahead = NormalsAhead(streams, "x", (dim,), 8)
    for t in (0, 1, 2, 3, 7, 0):  # a step that is not there is drawn, in whatever order
        assert torch.equal(ahead(t), streams.normal("x", (dim,), t))
        assert len(ahead._drawn) == (1 if t == 7 else 3)


def test_normals_agree_with_a_float64_box_muller():
    streams = Streams.from_seed(6, "float64")
    words = streams._words("x", 3, 10).numpy().astype(np.float64)
    u, v = (words[:, 0::2] + 0.5) / 2**32, words[:, 1::2] / 2**32
    radius = np.sqrt(-2 * np.log(u))
    expected = np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], -1).reshape(6, 10)
    drawn = streams.normal("x", (10,), step=3)
    assert drawn.dtype == torch.float32
    np.testing.assert_allclose(drawn.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_uniforms_fill_their_interval():
    sample = (
        Streams.from_seed(200, "uniform").uniform("x", (500,), low=-3.0, high=5.0).double().numpy().ravel()
    )
    assert sample.min() >= -3
    assert sample.max() < 5
    assert stats.kstest(sample, stats.uniform(-3, 8).cdf).pvalue > 1e-3


def test_the_largest_uniform_stays_below_an_open_end_where_floats_are_coarse(monkeypatch):
    streams = Streams.from_seed(1, 0)
    monkeypatch.setattr(streams, "_words", lambda *_: torch.full((1, 4), 0xFFFFFFFF))
    for low, high in ((0.0, 1.0), (1.0, 2.0), (100.0, 101.0), (-1.0, 0.0), (-0.06, 0.06)):
        drawn = streams.uniform("x", (4,), low=low, high=high)
        assert (drawn < torch.tensor(high)).all()
        assert (drawn > low + 0.99 * (high - low)).all()


@pytest.mark.parametrize("high", [2, 7, 1000])
def test_integers_are_uniform_below_high(high):
    sample = Streams.from_seed(200, "integers").integers("x", high, (200,))
    assert sample.dtype == torch.int64
    counts = torch.bincount(sample.ravel(), minlength=high)
    assert len(counts) == high
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert not Streams.from_seed(9, "one").integers("x", 1, (9,)).any()


def test_hashes_and_draws_are_the_same_in_another_process():
    code = (
        "from bench.streams import *; s = Streams.from_seed(2, 'a', 5);"
        "print(hash64('x', 1), s.keys.tolist(), s.integers('p', 10**6, (3,), step=2).tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    streams = Streams.from_seed(2, "a", 5)
    here = (hash64("x", 1), streams.keys.tolist(), streams.integers("p", 10**6, (3,), step=2).tolist())
    assert other.stdout.split() == " ".join(map(str, here)).split()


if torch.cuda.is_available():

    @pytest.mark.gpu
    def test_a_gpu_draws_the_same_bits():
        host, device = Streams.from_seed(64, "gpu"), Streams.from_seed(64, "gpu", device="cuda")
        assert torch.equal(host.integers("x", 1000, (99,)), device.integers("x", 1000, (99,)).cpu())
        assert torch.equal(host.uniform("x", (99,)), device.uniform("x", (99,)).cpu())
        normals = host.normal("x", (99,)), device.normal("x", (99,)).cpu()
        torch.testing.assert_close(*normals, rtol=1e-6, atol=1e-7)


def test_arrays_and_tensors_give_the_same_words():
    """The CPU computes words with NumPy, other devices with torch."""
    generator = np.random.default_rng(0)
    counter = [generator.integers(0, 2**32, (7, 1)) for _ in range(3)]
    counter.append(generator.integers(0, 2**32, (1, 9)))
    key = [generator.integers(0, 2**32, (7, 1)) for _ in range(2)]
    words = philox4x32(counter, key)
    found = philox4x32([torch.from_numpy(x) for x in counter], [torch.from_numpy(x) for x in key])
    for expected, tensor in zip(words, found):
        assert expected.shape == (7, 9)
        np.testing.assert_array_equal(expected, tensor.numpy())


def test_streams_of_many_indices_are_those_of_each():
    streams, numbers = Streams.from_seed(5, "many"), [0, 3, 1]
    together = streams.splits(numbers)
    assert torch.equal(together.keys, torch.cat([streams.split(k).keys for k in numbers]))
    tiled, number = streams.tiled(numbers)
    for draw in ("normal", "uniform"):
        drawn = getattr(tiled, draw)("p", (3,), number)
        assert torch.equal(drawn, torch.cat([getattr(streams, draw)("p", (3,), k) for k in numbers]))


@pytest.mark.parametrize("step", [0, 7, -1, 2**40])
def test_numpys_words_are_those_of_the_definition(step):
    streams, count = Streams.from_seed(6, "numpy", step), 11
    tag = hash64("purpose", "p")
    words = [step & 0xFFFFFFFF, tag & 0xFFFFFFFF, (tag >> 32) & 0xFFFFFFFF]
    for key, found in zip(streams.keys.tolist(), streams._words("p", step, count).tolist()):
        blocks = [_philox((block, *words), (key & 0xFFFFFFFF, key >> 32)) for block in range(3)]
        assert found == [word for block in blocks for word in block][:count]
