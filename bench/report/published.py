"""Published numbers beside the measured ones: a verdict per row, as Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.errors import ResultError
from bench.protocols.ledger import default_ledger, read_ledger
from bench.protocols.verdicts import Reproduction, declared_in, reproductions
from bench.report.tables import escape
from bench.store import RunStore, atomic_write


def published_rows(run_dirs: Sequence[Path], ledger: Path | None = None) -> list[Reproduction]:
    """What the runs' variants are meant to reproduce, and whether they do.

    ``ledger`` None is the default one. Raises DataError for a ledger that cannot be read or a row that is not
    in it, and ResultError where no variant declares any.
    """
    rows = read_ledger(ledger or default_ledger())
    found: list[Reproduction] = []
    for run_dir in run_dirs:
        store = RunStore(run_dir)
        records = store.records()
        found += reproductions(rows, records, declared_in(store.read_run(), records))
    if not found:
        raise ResultError(
            "report --published: no variant of these runs declares what it reproduces. Add, to its entry "
            "under variants: reproduces: [{system: …, metric: …, tolerance: …}], with a row of the ledger."
        )
    return found


def published_table(rows: Sequence[Reproduction]) -> pd.DataFrame:
    """One line per published number: both values, the tolerance, the verdict, both protocols' source."""
    return pd.DataFrame(
        [
            {
                "system": row.published.system,
                "metric": row.published.metric,
                "published": row.published.value,
                "measured": row.measured,
                "n": row.n,
                "tolerance": row.tolerance,
                "verdict": row.verdict,
                "variant": row.variant,
                "cell": row.cell,
                "source": row.published.source,
                "ledger line": row.published.line,
            }
            for row in rows
        ]
    )


def write_published(run_dirs: Sequence[Path], out: Path, ledger: Path | None = None) -> list[Path]:
    """Writes published.md and published.csv into ``out``; returns the paths."""
    table = published_table(published_rows(run_dirs, ledger))
    columns = ["system", "metric", "published", "measured", "n", "tolerance", "verdict", "variant", "source"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in table.to_dict("records"):
        shown = {**row, "measured": "" if pd.isna(row["measured"]) else f"{row['measured']:.4g}"}
        shown["n"] = "" if pd.isna(row["n"]) else str(int(row["n"]))
        lines.append("| " + " | ".join(escape(shown[column]) for column in columns) + " |")
    page, data = out / "published.md", out / "published.csv"
    atomic_write(page, ("# Published and measured\n\n" + "\n".join(lines) + "\n").encode())
    atomic_write(data, table.to_csv(index=False).encode())
    return [page, data]
