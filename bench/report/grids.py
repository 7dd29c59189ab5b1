"""Sample grids: prompts down, samplers across, the same condition and replicate in every column."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from bench.errors import BenchError
from bench.report.style import DPI, PNG_LEVEL
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
    # Drawn as one picture and not as a figure, whose hundreds of parts take seconds to set up.
    side, label_width, head, gap = 0.62, 1.9, 0.62, 0.06  # inches
    wide = replicates * side
    width, height = label_width + len(columns) * (wide + 0.15), head + len(rows) * (side + gap) + gap
    dots, pixels = DPI, round(side * DPI)
    canvas = np.full((round(height * dots), round(width * dots), 3), 255, np.uint8)
    texts_at = [_Text(title, width / 2, 0.22, 11)]
    for k, (record, samples) in enumerate(columns):
        left = label_width + k * (wide + 0.15)
        texts_at.append(_Text(record.cell.sampler, left + wide / 2, 0.48, 9))
        for r, row in enumerate(rows):
            top = round((head + r * (side + gap)) * dots)
            for j, image in enumerate(_images(store, record, samples, row, replicates)):
                x, part = round(left * dots) + j * pixels, _fitted(image, pixels - 2)
                canvas[top : top + part.shape[0], x : x + part.shape[1]] = part
    for r, row in enumerate(rows):
        label = "\n".join(textwrap.wrap(str(texts[row]), 26)[:3])
        texts_at.append(_Text(label, label_width - 0.1, head + r * (side + gap) + side / 2, 7.5, "rm"))
    picture = Image.fromarray(canvas)
    drawing = ImageDraw.Draw(picture)
    for item in texts_at:
        font, at = _font(item.points), (item.x * dots, item.y * dots)
        align = "right" if item.anchor == "rm" else "center"
        drawing.text(at, shown_text(item.text), "black", font, item.anchor, align=align)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, dpi=(dots, dots), compress_level=PNG_LEVEL)
    return [path]


class _Text(NamedTuple):
    """Text with its anchor ``x`` inches from the left and ``y`` from the top."""

    text: str
    x: float
    y: float
    points: float
    anchor: str = "mm"


def shown_text(text: str) -> str:
    """Untrusted text with spaces for what cannot be printed, which the layout of lines may refuse."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


@lru_cache(maxsize=8)
def _font(points: float) -> ImageFont.FreeTypeFont:
    """The figures' font, of which matplotlib brings the file."""
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, points * DPI / 72)


def _images(
    store: RunStore, record: Record, samples: pd.DataFrame, condition_id: str, replicates: int
) -> np.ndarray:
    """The first replicates of a condition, uint8 (K, H, W, 3); none where they cannot be read."""
    indices = samples.loc[samples["condition_id"] == condition_id, "index"].tolist()[:replicates]
    try:
        return store.read_images(record.cell.id, indices).transpose(0, 2, 3, 1)
    except BenchError:
        return np.empty((0, 1, 1, 3), np.uint8)


def _fitted(image_HWC: np.ndarray, side: int) -> np.ndarray:
    """The picture within a square of ``side`` pixels: its pixels as squares where it is enlarged."""
    height, width = image_HWC.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(image_HWC)).resize(size, how))
