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
    side = 0.62
    width = 1.9 + len(columns) * (replicates * side + 0.15)
    figure = new_figure(width, 0.7 + len(rows) * (side + 0.06))
    figure.suptitle(plain(title), fontsize=11)
    ratios = [1.9, *[replicates * side + 0.15] * len(columns)]
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False, gridspec_kw={"width_ratios": ratios})
    for axes_row, row, images in zip(grid, rows, tiles):
        label = "\n".join(textwrap.wrap(str(texts[row]), 26)[:3])
        axes_row[0].text(1.0, 0.5, plain(label), ha="right", va="center", fontsize=7.5)
        axes_row[0].axis("off")
        for axes, image in zip(axes_row[1:], images):
            axes.imshow(image, interpolation="nearest")
            axes.axis("off")
    for axes, (record, _) in zip(grid[0][1:], columns):
        axes.set_title(plain(record.cell.sampler), fontsize=9)
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
