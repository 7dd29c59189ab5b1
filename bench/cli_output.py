"""Tables and progress for the command line: rich on a terminal, plain tab-separated lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

ReportProgress = Callable[[str, int, int], None]


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> None:
    """Prints rows of text under a title; columns named in ``right`` are set flush right.

    Where standard output is not a terminal: the title after ``# ``, then one line per row, tab-separated.
    """
    console = Console()
    if not console.is_terminal:
        print(f"# {title}")
        for row in (columns, *rows):
            print("\t".join(" ".join(cell.split()) for cell in row))
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_literal(cell) for cell in row))
    console.print(table)


def _literal(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def quantity(value: int) -> str:
    """``12``, ``3.4 k``, ``5.6 M``, ``7.8 G``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return str(value)


def size(num: float) -> str:
    """``12 B``, ``3.4 KiB``, ``5.6 MiB``, ``7.8 TiB``."""
    for scale, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if num >= scale:
            return f"{num / scale:.1f} {unit}"
    return f"{num:.0f} B"


def duration(seconds: float) -> str:
    """``4.2 s``, ``3.5 min``, ``6.7 h``."""
    for scale, unit in ((3600, "h"), (60, "min")):
        if seconds >= scale:
            return f"{seconds / scale:.1f} {unit}"
    return f"{seconds:.1f} s"


@contextmanager
def progress_bars() -> Iterator[ReportProgress]:
    """A function ``(task, done, total)`` that draws one bar per task on standard error.

    Silent where standard error is not a terminal.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda task, done, total: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        tasks = {}

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = progress.add_task(task, total=total)
            progress.update(tasks[task], completed=done, total=total, visible=done < total)

        yield report
