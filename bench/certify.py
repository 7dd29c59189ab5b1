"""Certifies determinism: the same samples drawn again under other batch sizes, orders and shards.

What is compared is what a user gets: 8-bit images, and latents. The stored samples of a run are the one
side, samples drawn anew, by themselves and in other company, the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench import payload
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.errors import ResultError
from bench.needs import Needs
from bench.provenance import hardware, utc_now
from bench.samplers.draw import draw_tiled, to_uint8
from bench.streams import Streams
from bench.workshop import Workshop

CERTIFICATE = "certificate"


@dataclass(frozen=True)
class Arrangement:
    """A way of drawing the same samples: in this order, so many at once, networks on tiles of this size."""

    name: str
    order: tuple[int, ...]
    batch: int
    tile: int


def arrangements(picks: Sequence[int], tile: int) -> Iterator[Arrangement]:
    """Alone; in odd batches; backwards; interleaved as two workers would; on half and on double tiles."""
    own = tuple(picks)
    yield Arrangement("one at a time", own, 1, tile)
    yield Arrangement("seven at a time", own, 7, tile)
    yield Arrangement("in reverse order", own[::-1], len(own), tile)
    yield Arrangement("as two shards", own[::2] + own[1::2], (len(own) + 1) // 2, tile)
    if tile > 1:
        yield Arrangement(f"tile {tile // 2}", own, len(own), tile // 2)
    yield Arrangement(f"tile {2 * tile}", own, len(own), 2 * tile)


def certify_cell(workshop: Workshop, own: Needs, num: int) -> dict[str, Any]:
    """Draws ``num`` evenly spread samples of a cell in every arrangement and compares them with the stored.

    The certificate is stored and returned: largest difference of a pixel (of 255) and of a latent's
    coordinate, and the share of images that are equal to the bit, by arrangement. Raises ResultError where
    the cell has no stored samples.
    """
    total = own.cell.num_samples
    picks = sorted({k * total // min(num, total) for k in range(min(num, total))})
    images, latents = _stored(workshop.store, own, picks)
    translator = workshop.translator(own)
    sampler = workshop.suite.samplers[own.cell.sampler].config
    results: dict[str, Any] = {}
    for way in arrangements(picks, workshop.suite.samples.tile):
        found_images: dict[int, np.ndarray] = {}
        found_latents: dict[int, np.ndarray] = {}
        for start in range(0, len(way.order), way.batch):
            index = way.order[start : start + way.batch]
            problem = workshop.problem(own.assignment, own.cell, index, translator, way.tile)
            drawn = draw_tiled(sampler, problem, tile=way.tile, index=index)
            for k, i in enumerate(index):
                found_images[i] = to_uint8(drawn.images[k]).cpu().numpy()
                found_latents[i] = drawn.latents[k].cpu().numpy()
        pixel = np.abs(np.stack([found_images[i] for i in picks]).astype(int) - images)
        results[way.name] = {
            "largest_pixel_difference": int(pixel.max()),
            "largest_latent_difference": float(
                np.abs(np.stack([found_latents[i] for i in picks]) - latents).max()
            ),
            "equal_images": float((pixel.reshape(len(picks), -1).max(1) == 0).mean()),
        }
    certificate = {
        "samples": len(picks),
        "arrangements": results,
        "largest_pixel_difference": max(item["largest_pixel_difference"] for item in results.values()),
        "largest_latent_difference": max(item["largest_latent_difference"] for item in results.values()),
        "hardware": hardware(workshop.assembly.device),
        "created_utc": utc_now(),
    }
    workshop.store.write(
        CERTIFICATE, own.samples.key, CERTIFICATE, payload.pack({}, certificate), {"samples": own.samples.key}
    )
    return certificate


def _stored(store: ArtifactStore, own: Needs, picks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images (K, 3, H, W) as integers and latents (K, dim) of the picked samples."""
    images, latents = [], []
    for span in own.spans:
        rows = [i - span.start for i in picks if span.start <= i < span.stop]
        if not rows:
            continue
        try:
            table, _ = payload.unpack(store.read("samples", own.samples.key, span.name))
            pngs, _ = payload.unpack(store.read("images", own.samples.key, span.name))
        except (CorruptArtifact, MissingArtifact) as error:
            raise ResultError(
                f"{own.cell.id} has no stored samples to compare with ({error}) Run the suite."
            ) from None
        latents.append(table["latents"][rows])
        images.append(payload.decode_pngs(pngs)[rows].astype(int))
    return np.concatenate(images), np.concatenate(latents)


def read_certificate(store: ArtifactStore, samples_key: str) -> Mapping[str, Any] | None:
    """The latest certificate of a cell's samples, or None."""
    try:
        return payload.unpack(store.read(CERTIFICATE, samples_key, CERTIFICATE))[1]
    except (CorruptArtifact, MissingArtifact):
        return None


def largest_stream_difference(device: torch.device, num: int = 4096) -> float:
    """Largest difference of normal draws on ``device`` and on the CPU, from the same streams."""
    cpu, other = (Streams.from_seed(num, "certify", device=d).normal("n", (16,)) for d in ("cpu", device))
    return float((cpu - other.cpu()).abs().max())
