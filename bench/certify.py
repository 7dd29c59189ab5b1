"""Certifies determinism: the same samples drawn again under other batch sizes, orders, shards and tiles.

What is compared is what a user gets: 8-bit images, and latents. The stored samples of a run are the one
side, samples drawn anew, by themselves and in other company, the other. Under the same tile they are equal to
the bit; under another one kernels round otherwise, and a chain of gradient steps amplifies that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import identity, payload
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.assembly import Assembly, Progress, silent
from bench.errors import BenchError, ResultError
from bench.needs import Needs
from bench.plan import plan
from bench.provenance import hardware, utc_now
from bench.samplers.draw import draw_tiled, to_uint8
from bench.scoring import read_drawn
from bench.store import RunStore
from bench.streams import Streams
from bench.suite import Suite
from bench.workshop import Workshop

CERTIFICATE = "certificate"
SEVEN = 7
NUM_TILES = 3


@dataclass(frozen=True)
class Arrangement:
    """A way of drawing samples again: in these batches, in this order, networks on tiles of this size."""

    name: str
    batches: tuple[tuple[int, ...], ...]
    tile: int


@dataclass(frozen=True)
class Certified:
    """What became of one cell: its certificate, or in ``problem`` why there is none."""

    cell: str
    certificate: Mapping[str, Any] | None
    problem: str = ""


def arrangements(picks: Sequence[int], total: int, tile: int) -> Iterator[Arrangement]:
    """Ways of drawing ``picks`` of a cell's ``total`` samples, which were stored on tiles of ``tile``.

    Each sample alone; with its neighbours, seven at a time across the tiles' bounds; each tile backwards;
    every second sample, as two workers would share them out; on tiles half and twice as large.
    """
    starts = [min(max(0, i - SEVEN // 2), max(0, total - SEVEN)) for i in picks]
    yield Arrangement("one at a time", tuple((i,) for i in picks), tile)
    windows = tuple(tuple(range(start, min(start + SEVEN, total))) for start in dict.fromkeys(starts))
    yield Arrangement("seven at a time", windows, tile)
    whole = _tiles(picks, total, tile)
    yield Arrangement("in reverse order", tuple(batch[::-1] for batch in whole), tile)
    halves = (batch[parity::2] for batch in whole for parity in (0, 1))
    yield Arrangement("as two shards", tuple(half for half in halves if set(half) & set(picks)), tile)
    for other in (tile // 2, 2 * tile):
        if other:
            yield Arrangement(f"tile {other}", _tiles(picks, total, other), other)


def spread(num: int, total: int, tile: int) -> list[int]:
    """At most ``num`` of ``total`` samples, evenly spread over the first, the middle and the last tile.

    Networks always run on whole tiles: picks that share one are drawn again at the cost of one.
    """
    count = -(-total // tile)
    chosen = sorted({k * (count - 1) // (NUM_TILES - 1) for k in range(NUM_TILES)})
    rows = [i for k in chosen for i in range(k * tile, min((k + 1) * tile, total))]
    num = min(num, len(rows))
    return [rows[k * (len(rows) - 1) // max(num - 1, 1)] for k in range(num)]


def _tiles(picks: Sequence[int], total: int, tile: int) -> tuple[tuple[int, ...], ...]:
    """All samples of each tile that holds a pick."""
    found = dict.fromkeys(i // tile for i in picks)
    return tuple(tuple(range(k * tile, min((k + 1) * tile, total))) for k in found)


def certify(
    suite: Suite,
    run_dir: Path,
    device: torch.device,
    store: ArtifactStore,
    *,
    num: int = 16,
    progress: Progress | None = None,
) -> list[Certified]:
    """Certifies every cell of a suite, one after the other; a cell that cannot be is told in its ``problem``.

    Certificates go into the store, and into the records of the same samples in ``run_dir``, if there are any.
    """
    the_plan = plan(suite)
    workshop = Workshop(Assembly(suite, device, progress=progress or silent), the_plan, store)
    results = RunStore(run_dir)
    found = []
    for k, cell in enumerate(the_plan.cells):
        workshop.assembly.progress("certifying", k, len(the_plan.cells))
        try:
            own = workshop.needs(cell.id)
            certificate = certify_cell(workshop, own, num)
            update_record(results, own, certificate)
            found.append(Certified(cell.id, certificate))
        except BenchError as error:
            found.append(Certified(cell.id, None, str(error)))
        except Exception as error:
            found.append(Certified(cell.id, None, f"{type(error).__name__}: {error}"))
    workshop.assembly.progress("certifying", len(the_plan.cells), len(the_plan.cells))
    return found


def certify_cell(workshop: Workshop, own: Needs, num: int) -> dict[str, Any]:
    """Draws ``num`` samples of a cell, spread over three tiles, in every arrangement and compares them with
    what is stored.

    The certificate is stored and returned: largest difference of a pixel (of 255) and of a latent's
    coordinate, and the share of images that are equal to the bit, by arrangement, and over those of the same
    tile and of other tiles. Raises ResultError where the cell has no stored samples.
    """
    total = own.cell.num_samples
    picks = spread(num, total, workshop.suite.samples.tile)
    images, latents, tile_of, drawn_on = _stored(workshop.store, own, picks)
    differences: dict[tuple[str, bool], list[np.ndarray]] = {}
    for tile in sorted(set(tile_of.values())):  # one, unless a device's memory ran out on the way
        chosen = [i for i in picks if tile_of[i] == tile]
        for way in arrangements(chosen, total, tile):
            found = _drawn_again(workshop, own, way, chosen)
            rows = np.array(
                [
                    (np.abs(found[i][0] - images[i]).max(), np.abs(found[i][1] - latents[i]).max())
                    for i in chosen
                ]
            )
            differences.setdefault((way.name, way.tile == tile), []).append(rows)
    by_name = {key: np.concatenate(rows) for key, rows in differences.items()}
    certificate = {
        "samples": len(picks),
        "tiles": sorted(set(tile_of.values())),
        "arrangements": {name: _figures([rows]) for (name, _), rows in by_name.items()},
        "same_tile": _figures([rows for (_, same), rows in by_name.items() if same]),
        "other_tiles": _figures([rows for (_, same), rows in by_name.items() if not same]),
        "largest_stream_difference": largest_stream_difference(workshop.assembly.device),
        "noise": noise_digest(workshop.assembly.device),
        "hardware": hardware(workshop.assembly.device),
        "drawn_on": drawn_on,
        "created_utc": utc_now(),
    }
    workshop.store.write(*certificate_place(own), payload.pack({}, certificate), {"samples": own.samples.key})
    return certificate


def _figures(rows: Sequence[np.ndarray]) -> dict[str, Any]:
    """Of rows (pixel difference, latent difference), one per sample: the largest, and how many are equal."""
    pixel, latent = np.concatenate(rows).T
    return {
        "largest_pixel_difference": int(pixel.max()),
        "largest_latent_difference": float(latent.max()),
        "equal_images": float((pixel == 0).mean()),
    }


def _drawn_again(
    workshop: Workshop, own: Needs, way: Arrangement, picks: Sequence[int]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Pick → its image as integers and its latent, drawn in this way."""
    sampler = workshop.suite.samplers[own.cell.sampler].config
    translator, wanted = workshop.translator(own), set(picks)
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for index in way.batches:
        problem = workshop.problem(own.assignment, own.cell, index, translator, way.tile)
        drawn = draw_tiled(sampler, problem, tile=way.tile, index=index)
        images = to_uint8(drawn.images, workshop.suite.protocol.quantise).cpu().numpy().astype(int)
        latents = drawn.latents.cpu().numpy()
        found |= {i: (images[k], latents[k]) for k, i in enumerate(index) if i in wanted}
    return found


def _stored(
    store: ArtifactStore, own: Needs, picks: Sequence[int]
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray], dict[int, int], list[dict[str, Any]]]:
    """By pick: its image (3, H, W) as integers, its latent, the tile it was drawn on; and on what devices."""
    images: dict[int, np.ndarray] = {}
    tile_of: dict[int, int] = {}
    try:
        for part in own.translator_parts():
            if not store.exists(*part.place):
                raise MissingArtifact(f"artifact '{'/'.join(part.place)}' is missing.")
        drawn = read_drawn(store, own)
        for span in own.spans:
            chosen = [i for i in picks if span.start <= i < span.stop]
            if chosen:
                _, meta = payload.unpack(store.read("samples", own.samples.key, span.name))
                files = payload.unpack(store.read("images", own.samples.key, span.name))[0]
                stack = payload.decode_pngs(files).astype(int)
                images |= {i: stack[i - span.start] for i in chosen}
                tile_of |= dict.fromkeys(chosen, int(meta["timing"]["batch_size"]))
    except (CorruptArtifact, MissingArtifact) as error:
        raise ResultError(f"no stored samples to compare with: run the suite first. ({error})") from None
    return images, {i: drawn.latents[i] for i in picks}, tile_of, drawn.hardware


# --- certificates of a cell ----------------------------------------------------------------------


def certificate_place(own: Needs) -> tuple[str, str, str]:
    """Where a cell's certificate is stored: a key of samples covers every seed and condition, so its name
    says which."""
    digest = identity.conditions_digest(own.assignment.conditions, own.assignment.seeds)
    return CERTIFICATE, own.samples.key, digest


def read_certificate(store: ArtifactStore, own: Needs) -> Mapping[str, Any] | None:
    """The latest certificate of a cell's samples, or None."""
    try:
        return payload.unpack(store.read(*certificate_place(own)))[1]
    except (CorruptArtifact, MissingArtifact):
        return None


def update_record(results: RunStore, own: Needs, certificate: Mapping[str, Any]) -> bool:
    """Writes a certificate into a run's record of these samples; whether there is one."""
    try:
        record = results.read_record(own.cell.id)
    except ResultError:
        return False
    named = {"key": own.samples.key, "spans": [span.name for span in own.spans]}
    if record.status != "ok" or record.artifacts.get("samples") != named:
        return False
    results.write_record(replace(record, certificate=certificate))
    return True


# --- noise ---------------------------------------------------------------------------------------


def _noise(device: torch.device | str, num: int = 4096) -> torch.Tensor:
    return Streams.from_seed(num, "certify", device=device).normal("n", (16,)).cpu()


def largest_stream_difference(device: torch.device) -> float:
    """Largest difference of normal draws on ``device`` and on the CPU, from the same streams."""
    return float((_noise("cpu") - _noise(device)).abs().max())


def noise_digest(device: torch.device | str = "cpu") -> str:
    """16 hex characters over normal draws: equal in every process that draws the same noise."""
    return hashlib.blake2b(_noise(device).numpy().tobytes(), digest_size=8).hexdigest()
