"""Counter-based random numbers, one independent stream per sample.

A draw depends only on (key of the sample, purpose, step, position), never on batch size, order, shard,
worker or device. The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011), written in integer tensor operations so that CPU and GPU give the same bits; normals
are formed in float64 and rounded to float32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF = np.uint64(_MASK), np.uint64(32)
_MULTIPLIERS = np.array([_M0, _M1], np.uint64)[:, None, None]
_WEYL = np.arange(10, dtype=np.uint64)[:, None, None] * np.array([_W0, _W1], np.uint64)[:, None]  # (10, 2, 1)


AHEAD = 2**18  # numbers that are drawn at once for steps to come

Words = TypeVar("Words", Tensor, np.ndarray)


def philox4x32(counter: Sequence[Words], key: Sequence[Words]) -> tuple[Words, ...]:
    """Four 32-bit words per counter, ten rounds.

    ``counter`` has four words and ``key`` two: int64 tensors or arrays with values in [0, 2**32) that
    broadcast together.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap modulo 2**64; shift and mask recover the unsigned halves exactly.
        p0, p1 = c0 * _M0, c2 * _M1
        hi0, lo0 = (p0 >> 32) & _MASK, p0 & _MASK
        hi1, lo1 = (p1 >> 32) & _MASK, p1 & _MASK
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def _philox_in_numpy(keys_N: np.ndarray, blocks: int, constants: tuple[np.ndarray, int, int]) -> np.ndarray:
    """int64 (N, blocks, 4): what :func:`philox4x32` gives for the counters (block, *constants), the first of
    which is one number or one of each stream, (N or 1, 1).

    Small arrays are what is drawn, and an operation on one costs the same whatever its size: unsigned words,
    and both halves of a round in one array, need a quarter as many, and NumPy starts one sooner than torch.
    """
    keys = keys_N.view(np.uint64)
    halves = np.stack([keys & _LOW, keys >> _HALF])  # (2, N)
    schedule = (_WEYL + halves & _LOW)[..., None]  # (10, 2, N, 1)
    even, odd = np.empty((2, 2, len(keys), blocks), np.uint64)  # words 0 and 2, words 1 and 3
    even[0], even[1] = np.arange(blocks, dtype=np.uint64), constants[1]
    odd[0], odd[1] = constants[0], constants[2]
    for key in schedule:
        product = even * _MULTIPLIERS
        even = (product >> _HALF)[::-1] ^ odd ^ key
        odd = (product & _LOW)[::-1]
    words = np.empty((len(keys), blocks, 4), np.uint64)
    words[..., 0::2], words[..., 1::2] = even.transpose(1, 2, 0), odd.transpose(1, 2, 0)
    return words.view(np.int64)


def hash64(*parts: object) -> int:
    """A 63-bit non-negative integer from the parts' text, stable across processes and versions."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


class Streams:
    """Random numbers for N samples, keyed by one 63-bit integer each.

    ``Streams(keys)`` takes int64 keys of shape (N,). Every draw returns shape (N, *shape) on the keys'
    device. ``purpose`` separates uses ("prior", "langevin", "augment"), ``step`` the repetitions of one.
    """

    def __init__(self, keys: Tensor | Sequence[int], device: torch.device | str | None = None):
        keys = torch.as_tensor(keys, dtype=torch.int64)
        self.keys = keys.to(device) if device is not None else keys
        if self.keys.ndim != 1:
            raise ValueError(f"stream keys must have shape (N,), got {tuple(self.keys.shape)}")

    @classmethod
    def from_seed(
        cls, num: int, *parts: object, start: int = 0, device: torch.device | str | None = None
    ) -> Streams:
        """Streams start … start+num-1 of the seed named by ``parts``; stream i depends on neither bound."""
        # 2**61 - 1 is odd, so i -> base + i * step is injective modulo 2**63; int64 wraps modulo 2**64.
        index = torch.arange(start, start + num, dtype=torch.int64)
        return cls((hash64(*parts) + index * 0x1FFFFFFFFFFFFFFF) & 0x7FFFFFFFFFFFFFFF, device)

    def __len__(self) -> int:
        return int(self.keys.shape[0])

    @property
    def device(self) -> torch.device:
        return self.keys.device

    def __getitem__(self, index: slice | Tensor) -> Streams:
        return Streams(self.keys[index])

    def repeat_interleave(self, copies: int) -> Streams:
        """``copies`` new streams per sample, in a row; copy j of sample i depends on neither neighbour."""
        # Fresh keys are drawn, not stepped: neighbours of one seed are a constant step apart, so that
        # a stepped copy of one sample would meet another sample's copy.
        words = self._words("repeat", 0, 2 * copies).reshape(-1, 2)
        return Streams(words[:, 0] | ((words[:, 1] & 0x7FFFFFFF) << 32))

    def split(self, index: int) -> Streams:
        """Fresh independent streams of the same samples for each index; index 0 is the streams themselves."""
        if index == 0:
            return self
        words = self._words("split", index, 2)
        return Streams((words[:, 0] | (words[:, 1] << 32)) & 0x7FFFFFFFFFFFFFFF)

    def splits(self, indices: Sequence[int]) -> Streams:
        """The streams of :meth:`split` for each index in turn, len(indices) · N of them, index by index."""
        tiled, index = self.tiled(indices)
        words = tiled._words("split", index, 2)
        keys = (words[:, 0] | (words[:, 1] << 32)) & 0x7FFFFFFFFFFFFFFF
        return Streams(torch.where(index == 0, tiled.keys, keys))

    def tiled(self, indices: Sequence[int]) -> tuple[Streams, Tensor]:
        """These streams once per index, and the index of each: int64 (len(indices) · N,), to draw by."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        return Streams(self.keys.repeat(len(index))), index.repeat_interleave(len(self))

    def _words(self, purpose: str, step: int | Tensor, count: int) -> Tensor:
        """(N, count) int64 words in [0, 2**32); ``step`` is one for all or one of each, int64 (N,)."""
        blocks = (count + 3) // 4
        tag = hash64("purpose", purpose)
        own = step[:, None] if isinstance(step, Tensor) else torch.tensor([[step]], device=self.device)
        own, low, high = own & _MASK, tag & _MASK, (tag >> 32) & _MASK
        if self.device.type == "cpu":
            constants = own.numpy(), low, high
            drawn = torch.from_numpy(_philox_in_numpy(self.keys.numpy(), blocks, constants))
        else:
            key, block = self.keys[:, None], torch.arange(blocks, device=self.device)[None, :]
            full = [own, *(torch.full((1, 1), value, device=self.device) for value in (low, high))]
            found = philox4x32((block, *full), (key & _MASK, (key >> 32) & _MASK))
            drawn = torch.stack(torch.broadcast_tensors(*found), dim=-1)
        return drawn.reshape(len(self), blocks * 4)[:, :count]

    def uniform(
        self, purpose: str, shape: Sequence[int] = (), step: int | Tensor = 0, *, low=0.0, high=1.0
    ) -> Tensor:
        """Float32 in [low, high), resolution 2**-24 of the range, shape (N, *shape)."""
        words = self._words(purpose, step, math.prod(shape))
        unit = (words >> 8).to(torch.float32) * 2.0**-24
        # Rounding can lift the largest draw onto the open end: [1, 2) has half as many float32 values.
        largest = float(np.nextafter(np.float32(high), np.float32(low)))
        return (low + (high - low) * unit).clamp(max=largest).reshape(len(self), *shape)

    def normal(self, purpose: str, shape: Sequence[int] = (), step: int | Tensor = 0) -> Tensor:
        """Standard normal float32 by Box-Muller, shape (N, *shape)."""
        count = math.prod(shape)
        words = self._words(purpose, step, 2 * ((count + 1) // 2)).to(torch.float64)
        radius = words[:, 0::2].add(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
        angle = words[:, 1::2].mul(2.0**-32).mul_(2.0 * math.pi)
        drawn = torch.empty((*radius.shape, 2), dtype=torch.float32, device=self.device)
        drawn[..., 0], drawn[..., 1] = angle.cos().mul_(radius), angle.sin().mul_(radius)
        return drawn.reshape(len(self), -1)[:, :count].contiguous().reshape(len(self), *shape)

    def normals(self, purpose: str, shape: Sequence[int], steps: Sequence[int]) -> Tensor:
        """What :meth:`normal` draws at each of these steps, (len(steps), N, *shape)."""
        tiled, step = self.tiled(steps)
        return tiled.normal(purpose, shape, step).reshape(len(steps), len(self), *shape)

    def integers(self, purpose: str, high: int, shape: Sequence[int] = (), step: int | Tensor = 0) -> Tensor:
        """Int64 in [0, high), shape (N, *shape); bias below high / 2**32."""
        words = self._words(purpose, step, math.prod(shape))
        return ((words * high) >> 32).reshape(len(self), *shape)


class NormalsAhead:
    """What ``streams.normal(purpose, shape, t)`` gives for t = 0, 1, …, steps - 1, asked for in turn.

    Small draws cost the same whatever their size, so that those of several steps are made at once: as many as
    make a quarter of a million numbers.
    """

    def __init__(self, streams: Streams, purpose: str, shape: Sequence[int], steps: int):
        self.streams, self.purpose, self.shape, self.steps = streams, purpose, tuple(shape), steps
        self._first, self._drawn = 0, torch.empty(0)

    def __call__(self, t: int) -> Tensor:
        """(N, *shape) of step ``t``."""
        if not self._first <= t < self._first + len(self._drawn):
            per = max(1, AHEAD // max(1, len(self.streams) * math.prod(self.shape)))
            steps = range(t, max(t + 1, min(t + per, self.steps)))
            self._first, self._drawn = t, self.streams.normals(self.purpose, self.shape, steps)
        return self._drawn[t - self._first]
