"""Sample grids: prompts down, samplers across, the same condition and replicate in every column."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.report.style import new_figure, plain
from bench.store import Record, RunStore

MAX_ROWS = 10
REPLICATES = 3


def sample_grid(store: RunStore, records: Sequence[Record], path: Path, title: str) -> list[Path]:
    """A PNG with up to ten conditions and up to three replicates per sampler; [] where no images are left."""
    columns = []
    for record in records:
        if not store.num_images(record.cell.id):  # a bundle may have left them out
            continue
        try:
            columns.append((record, store.read_samples(record.cell.id)))
        except BenchError:
            continue
    if not columns:
        return []
    table = columns[0][1]
    order = list(dict.fromkeys(table["condition_id"]))
    rows = [order[k * len(order) // min(MAX_ROWS, len(order))] for k in range(min(MAX_ROWS, len(order)))]
    texts = {row.condition_id: row.text for row in table.itertuples()}
    replicates = min(REPLICATES, int(table.groupby("condition_id").size().min()))
    tiles = [[_cell(store, record, samples, row, replicates) for record, samples in columns] for row in rows]
    # Places in inches: to find them by looking at fifty axes takes longer than to draw these.
    side, label_width, head, gap = 0.62, 1.9, 0.62, 0.06
    wide = replicates * side
    width, height = label_width + len(columns) * (wide + 0.15), head + len(rows) * (side + gap) + gap
    figure = new_figure(width, height, arranged=True)
    figure.text(0.5, 1 - 0.22 / height, plain(title), ha="center", va="center", fontsize=11)
    for k, (record, _) in enumerate(columns):
        middle = label_width + k * (wide + 0.15) + wide / 2
        name = plain(record.cell.sampler)
        figure.text(middle / width, 1 - 0.48 / height, name, ha="center", va="center", fontsize=9)
    for r, (row, images) in enumerate(zip(rows, tiles)):
        bottom = height - head - (r + 1) * side - r * gap
        label = "\n".join(textwrap.wrap(str(texts[row]), 26)[:3])
        at = (label_width - 0.1) / width, (bottom + side / 2) / height
        figure.text(*at, plain(label), ha="right", va="center", fontsize=7.5)
        for k, image in enumerate(images):
            left = label_width + k * (wide + 0.15)
            axes = figure.add_axes((left / width, bottom / height, wide / width, side / height))
            axes.imshow(image, interpolation="nearest")
            axes.axis("off")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return [path]


def _cell(
    store: RunStore, record: Record, samples: pd.DataFrame, condition_id: str, replicates: int
) -> np.ndarray:
    """The first replicates of a condition side by side, uint8 (H, replicates * W, 3), white where missing."""
    indices = samples.loc[samples["condition_id"] == condition_id, "index"].tolist()[:replicates]
    try:
        images = store.read_images(record.cell.id, indices).transpose(0, 2, 3, 1)
    except BenchError:
        return np.full((32, 32 * replicates, 3), 255, np.uint8)
    gap = np.full((images.shape[1], 1, 3), 255, np.uint8)
    parts = [part for image in images for part in (image, gap)][:-1]
    return np.concatenate(parts, axis=1)
