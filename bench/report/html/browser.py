"""What the sample browser of one table shows: prompts down, variants across, the same condition and seed.

Plain data for the page, indices into sprites; captions and names go in as they are and are shown as text.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.report.breakdown import score_columns
from bench.report.evidence import RunEvidence
from bench.report.html.sprites import LARGEST_SIDE, Sprites
from bench.report.tables import Group, variant_name
from bench.store import Record, RunStore

TILES = (16, 16)  # columns and rows of a sprite of samples
TRAJECTORY_SAMPLES = 256
TRAJECTORIES_PER_SPRITE = 32
CHUNK = 64  # images read at once


def browser(
    store: RunStore, group: Group, samples: Mapping[str, pd.DataFrame], sprites: Sprites,
    evidence: RunEvidence, out: Path,
) -> dict[str, Any] | None:  # fmt: skip
    """The browser of a group, its thumbnails added to ``sprites``; None where no images are left.

    ``samples`` are per-sample tables by cell id.
    """
    shown = [
        record
        for record in group.records
        if record.cell.id in samples and store.num_images(record.cell.id) == len(samples[record.cell.id])
    ]
    rows: dict[tuple[str, int], int] = {}
    prompts: list[dict[str, Any]] = []
    variants: list[dict[str, Any]] = []
    nearest: dict[str, Any] = {}
    for record in shown:
        table = samples[record.cell.id]
        picture = sprites.add(_images(store, record), *TILES)
        if picture is None:
            continue
        replicate = table["replicate"] if "replicate" in table else table.groupby("condition_id").cumcount()
        keys = list(zip(table["condition_id"].astype(str), replicate.astype(int)))
        for key, row in zip(keys, table.to_dict("records")):
            if key not in rows:
                rows[key] = len(rows)
                text = row.get("text")
                prompts.append({"id": key[0], "text": text if isinstance(text, str) else key[0], "k": key[1]})
        variants.append(
            {
                "cell": record.cell.id,
                "name": variant_name(record, group),
                "images": picture,
                "at": [rows[key] for key in keys],
                "columns": {name: _numbers(table[name]) for name in ["energy", *score_columns(table)]
                            if name in table},
                "failed": [int(v) for v in table["failed_step"]] if "failed_step" in table else None,
                "full": _full_size(store, record, out),
            }
        )  # fmt: skip
        found = evidence.nearest(record)
        if found is not None and len(found.index) == len(table):
            nearest[record.cell.id] = found
    if not variants:
        return None
    result = {"prompts": prompts, "variants": variants, "real": None}
    _add_nearest(result, nearest, group, sprites, evidence)
    _add_trajectories(result, shown, sprites, evidence)
    return result


def _images(store: RunStore, record: Record) -> Iterator[np.ndarray]:
    """Final images in order, grey ones in place of such as cannot be read."""
    shape, cell, num = (3, 32, 32), record.cell.id, store.num_images(record.cell.id)
    for start in range(0, num, CHUNK):
        wanted = range(start, min(start + CHUNK, num))
        try:
            yield from (images := store.read_images(cell, wanted))
            shape = images.shape[1:]
            continue
        except BenchError:
            pass
        for index in wanted:
            try:
                image = store.read_images(cell, [index])[0]
                shape = image.shape
            except BenchError:
                image = np.full(shape, 128, np.uint8)
            yield image


def _numbers(values: pd.Series) -> list[float | int | None]:
    """Four significant digits; null for what is not finite."""
    if values.dtype == bool:
        return [int(value) for value in values]
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values.astype(float)]


def _full_size(store: RunStore, record: Record, out: Path) -> str | None:
    """The folder of full-size images relative to the page, where thumbnails are smaller and it is near."""
    first = store.image_path(record.cell.id, 0)
    try:
        small = max(store.read_images(record.cell.id, [0]).shape[2:]) <= LARGEST_SIDE
    except BenchError:
        return None
    inside = out.resolve().is_relative_to(store.run_dir.resolve())
    return None if small or not inside else Path(os.path.relpath(first.parent, out)).as_posix()


def _add_nearest(
    result: dict[str, Any], nearest: Mapping[str, Any], group: Group, sprites: Sprites, evidence: RunEvidence
) -> None:
    """Each sample's nearest real image, its picture in a sprite of those that are nearest to any."""
    if not nearest:
        return
    used = np.unique(np.concatenate([found.index for found in nearest.values()]))
    used = used[used >= 0]
    real = evidence.real_images(group.data, used.tolist())
    if real is None or not len(used):
        return
    images, ids = real
    result["real"] = {"images": sprites.add(images, *TILES), "ids": ids}
    for variant in result["variants"]:
        found = nearest.get(variant["cell"])
        if found is not None:
            place = np.where(found.index >= 0, np.searchsorted(used, found.index.clip(0)), -1)
            variant["nearest"] = {
                "at": place.tolist(),
                "distance": _numbers(pd.Series(found.distance)),
                "judge": found.judge,
                "of": found.num_reference,
            }


def _add_trajectories(
    result: dict[str, Any], shown: list[Record], sprites: Sprites, evidence: RunEvidence
) -> None:
    """The strip of each variant's first samples: as many as the page still has room for."""
    by_cell = {record.cell.id: record for record in shown}
    for variant in result["variants"]:
        record = by_cell[variant["cell"]]
        if len({score.step for score in record.curve}) < 2:
            continue
        num = min(TRAJECTORY_SAMPLES, record.cell.num_samples) if sprites.room > 0 else 0
        found = evidence.trajectories(record, num) if num else None
        if found is not None:
            steps, images = found
            columns = len(steps)
            variant["trajectory"] = {
                "steps": steps,
                "images": sprites.add(images, columns, TRAJECTORIES_PER_SPRITE),
            }
