"""One look for all figures: Okabe and Ito's colour-blind-safe palette, quiet axes, no global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
DPI = 130
PNG_LEVEL = 3  # of zlib's 9: files an eighth larger, in two thirds of the time
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def new_figure(width: float, height: float, *, arranged: bool = False) -> Figure:
    """An Agg figure of this size in inches, laid out so that nothing overlaps; with ``arranged`` axes stay
    where they are put."""
    figure = Figure(figsize=(width, height), layout=None if arranged else "constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def arrange(
    figure: Figure, *, left: float = 0.75, right: float = 0.2, top: float = 0.4, bottom: float = 0.6,
    between: float = 0.75, rows: int = 1, columns: int = 1,
) -> None:  # fmt: skip
    """Puts the axes of a grid where there is room for their labels, all in inches; ``between`` columns, rows
    get what labels and titles need. To search for these places draws every label several times."""
    width, height = figure.get_size_inches()
    axes_width = (width - left - right - between * (columns - 1)) / columns
    axes_height = (height - top - bottom - (top + bottom) * (rows - 1)) / rows
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, top=1 - top / height, bottom=bottom / height,
        wspace=between / axes_width, hspace=(top + bottom) / axes_height,
    )  # fmt: skip


def entitle(axes: Axes, text: str, size: float) -> None:
    """A title right above the axes: told where, matplotlib does not lay out all ticks to find a place."""
    axes.set_title(plain(text), fontsize=size, y=1.0)


def quiet(axes: Axes) -> None:
    """A light grid and no upper or right frame."""
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def log_scale(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers at its powers of ten, which are quick to set."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def plain(text: str) -> str:
    """Text that matplotlib shows as it is, without reading dollars as mathematics."""
    return text.replace("$", r"\$")


def save(figure: Figure, path: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """The figure in each format beside each other, without dates, so that equal runs give equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for form in formats:
        file = path.with_suffix(f".{form}")
        with matplotlib.rc_context({"svg.hashsalt": "tr0n-bench"}):  # else element ids are random
            if form == "png":
                figure.savefig(file, metadata={"Software": None}, pil_kwargs={"compress_level": PNG_LEVEL})
            else:
                figure.savefig(file, metadata={"Date": None})
        figure.set_layout_engine("none")  # the first drawing has found the places
        files.append(file)
    return files
