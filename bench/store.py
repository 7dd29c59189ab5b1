"""Results on disk: one folder per run, one per cell; everything written whole or not at all.

::

    <run>/run.json                         the resolved suite, cell ids in order, provenance
    <run>/journal.jsonl                    attempts and what each of them made
    <run>/cells/<id>/record.json           one Record
    <run>/cells/<id>/images/000000.png     final samples, lossless RGB, in index order
    <run>/cells/<id>/latents.safetensors   "latents" (N, dim) float32
    <run>/cells/<id>/samples.parquet       one row per sample
    <run>/cells/<id>/export.json           what images, latents and table were exported from

The artifact store is where samples live; a run's folder holds records, and samples as files for people.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from bench.artifacts.faults import told
from bench.artifacts.folder import DAY_S, is_dead, temporary_path
from bench.artifacts.locks import file_lock
from bench.errors import DataError, ResultError
from bench.types import ConditionKind, Score, Timing

SCHEMA = 3
READABLE = (2, 3)  # 2: no intervals


@dataclass(frozen=True, kw_only=True)
class CellInfo:
    """Which variant a record belongs to; ``config`` holds the resolved components as plain data."""

    id: str
    variant: str
    data: str
    condition_kind: ConditionKind
    generator: str
    conditioner: str
    sampler: str
    translator: str | None
    num_samples: int
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one cell: a failed one has ``error`` {type, message} and no scores.

    ``failed_samples`` counts samples that no score includes. ``hardware`` lists what samples were drawn on,
    ``tiles`` the sizes that networks ran on. ``artifacts`` are the keys of all that the scores come from;
    ``certificate`` is what ``certify`` found, if it was asked. ``protocol`` is what
    :func:`bench.protocols.record_protocol` says; empty in records of older versions and failed ones.
    ``notes`` says what was settled on loading G and f, and how many texts f had to cut (``truncated_texts``).
    ``in_loop`` maps each judge that guided, or is next of kin to one that did, to what they share: its scores
    measure nothing.
    """

    cell: CellInfo
    status: Literal["ok", "failed"]
    schema: int = SCHEMA
    error: Mapping[str, str] | None = None
    scores: tuple[Score, ...] = ()
    curve: tuple[Score, ...] = ()
    timing: Timing | None = None
    failed_samples: int = 0
    hardware: tuple[Mapping[str, Any], ...] = ()
    tiles: tuple[int, ...] = ()
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] | None = None
    in_loop: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    created_utc: str = ""


_RECORD = TypeAdapter(Record)


def comparable(record: Record) -> dict[str, Any]:
    """The record as plain data without what time, speed and the machine leave in it.

    Two runs of one suite are equal in this form.
    """
    plain = asdict(
        replace(record, timing=None, created_utc="", environment={}, hardware=(), certificate=None)
    )
    plain["scores"] = [score for score in plain["scores"] if score["unit"] not in TIME_UNITS]
    return plain


TIME_UNITS = ("s", "s/image", "images/s", "GiB")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that replaces ``path`` when the block ends without an error.

    Raises ResultError for a fault of the disk.
    """
    with told("written", str(path), (OSError,), ResultError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = temporary_path(path)
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Writes a file whole: temporary name, fsync, rename."""
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def finite(value: Any) -> Any:
    """Plain data with NaN and infinities replaced by null, as JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    return value


def to_json(value: Any) -> bytes:
    """JSON text: keys in their own order (a suite's order means something), ended by a newline."""
    return (json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n").encode()


def _image_name(index: int) -> str:
    return f"{index:06d}.png"


class RunStore:
    """Reads and writes one run. Raises ResultError for a run or record that is missing or broken, and for
    one that cannot be written."""

    def __init__(self, run_dir: Path | str):
        self.run_dir = Path(run_dir)

    def cell_dir(self, cell_id: str) -> Path:
        if Path(cell_id).name != cell_id or cell_id == "..":  # a run may come from others
            raise ResultError(f"{self.run_dir}: {cell_id!r} is no id of a cell. Fetch the run anew.")
        return self.run_dir / "cells" / cell_id

    def sweep(self) -> list[Path]:
        """Removes temporary files of dead processes, and returns their paths."""
        removed = []
        for folder, subfolders, names in os.walk(self.run_dir):
            if "export.json" in names and "images" in subfolders:
                subfolders.remove("images")  # many files, and complete
            for path in (Path(folder, name) for name in names if name.endswith(".tmp")):
                with contextlib.suppress(FileNotFoundError):
                    if is_dead(path):
                        path.unlink()
                        removed.append(path)
        return removed

    # --- the run and its records

    def write_run(self, content: Mapping[str, Any]) -> None:
        atomic_write(self.run_dir / "run.json", to_json({"schema": SCHEMA, **content}))

    def read_run(self) -> dict[str, Any]:
        path = self.run_dir / "run.json"
        content = _read_json(path, "Run the suite first: tr0n-bench run SUITE.")
        _check_schema(path, content)
        return content

    def write_record(self, record: Record) -> None:
        atomic_write(self.cell_dir(record.cell.id) / "record.json", to_json(asdict(record)))

    def read_record(self, cell_id: str) -> Record:
        path = self.cell_dir(cell_id) / "record.json"
        content = _read_json(path, "The cell did not run; run the suite again.")
        _check_schema(path, content)
        content["schema"] = SCHEMA  # what an older one lacks has the defaults of today
        unknown = content.keys() - {item.name for item in fields(Record)}
        if unknown:
            raise ResultError(f"{path}: unknown field '{min(unknown)}'. Remove it or run the cell again.")
        try:
            return _RECORD.validate_python(_with_nan(content))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ResultError(f"{path}: {where}: {first['msg']}. Run the cell again.") from error

    def records(self) -> list[Record]:
        """The records of all cells in the run's order; a cell without one is left out."""
        ids = self.read_run()["cells"]
        return [
            self.read_record(cell_id) for cell_id in ids if (self.cell_dir(cell_id) / "record.json").exists()
        ]

    # --- samples

    def image_path(self, cell_id: str, index: int) -> Path:
        return self.cell_dir(cell_id) / "images" / _image_name(index)

    def write_images(self, cell_id: str, files: Iterable[bytes]) -> int:
        """Image files in index order, each written whole; returns how many."""
        folder = self.image_path(cell_id, 0).parent
        count = 0
        with told("written", str(folder), (OSError,), ResultError):
            folder.mkdir(parents=True, exist_ok=True)
            partial = str(temporary_path(folder / "image.png"))
            try:
                for count, content in enumerate(files, 1):
                    with open(partial, "wb") as file:
                        file.write(content)
                    os.replace(partial, f"{folder}/{_image_name(count - 1)}")
            finally:
                Path(partial).unlink(missing_ok=True)
            for path in folder.glob("*"):
                if path.suffix != ".png" or not path.stem.isdigit() or int(path.stem) >= count:
                    path.unlink(missing_ok=True)
        return count

    def read_images(self, cell_id: str, indices: Sequence[int] | None = None) -> np.ndarray:
        """uint8 (N, 3, H, W), all of the first one's size. Raises DataError naming an image that is missing,
        cannot be read or has another."""
        if indices is None:
            indices = range(self.num_images(cell_id))
        folder, sheet, size = str(self.image_path(cell_id, 0).parent), None, (0, 0)
        for row, index in enumerate(indices):
            path = f"{folder}/{_image_name(index)}"
            try:
                with open(path, "rb") as file, Image.open(file, formats=("PNG",)) as image:
                    if sheet is None:
                        # Below each other on one sheet, as to turn each into an array takes longer.
                        size = image.size
                        sheet = Image.new("RGB", (size[0], size[1] * len(indices)))
                    if image.size != size:
                        raise ValueError(f"{image.size} pixels, others have {size}")
                    sheet.paste(image, (0, row * size[1]))  # as RGB
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"image '{path}' cannot be read: {error}. Run the cell again.") from error
        if sheet is None:
            raise DataError(f"{self.cell_dir(cell_id) / 'images'} holds no images. Run the cell again.")
        return np.array(sheet).reshape(len(indices), size[1], size[0], 3).transpose(0, 3, 1, 2)

    def write_latents(self, cell_id: str, latents_ND: np.ndarray) -> None:
        from safetensors.numpy import save

        atomic_write(self.cell_dir(cell_id) / "latents.safetensors", save({"latents": latents_ND}))

    def read_latents(self, cell_id: str) -> np.ndarray:
        from safetensors.numpy import load_file

        return load_file(self.cell_dir(cell_id) / "latents.safetensors")["latents"]

    def write_samples(self, cell_id: str, table: pd.DataFrame) -> None:
        with atomic_path(self.cell_dir(cell_id) / "samples.parquet") as partial:
            table.to_parquet(partial, index=False)

    def read_samples(self, cell_id: str) -> pd.DataFrame:
        path = self.cell_dir(cell_id) / "samples.parquet"
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ResultError(
                f"per-sample table '{path}' cannot be read: {error}. Run the cell again."
            ) from error

    def export(
        self, cell_id: str, source: Mapping[str, Any], images: Iterable[bytes], latents_ND: np.ndarray,
        table: pd.DataFrame,
    ) -> bool:  # fmt: skip
        """Images, latents and table as files, unless those of the same ``source`` are there already.

        A file that is missing or of another size than was written has all written again. One process at a
        time: each removes what it finds besides its own.
        """
        stamp = self.cell_dir(cell_id) / "export.json"
        with self._locked(stamp):
            try:
                if _read_json(stamp, "") == {"source": source, "bytes": self._exported_bytes(cell_id)}:
                    return False
            except ResultError:
                pass
            with told("removed", str(stamp), (OSError,), ResultError):
                stamp.unlink(missing_ok=True)
            self.write_images(cell_id, images)
            self.write_latents(cell_id, latents_ND)
            self.write_samples(cell_id, table)
            atomic_write(stamp, to_json({"source": source, "bytes": self._exported_bytes(cell_id)}))
            return True

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with told("locked", str(path), (OSError,), ResultError):
                lock = file_lock(path.with_name(f".{path.name}.lock"), wait=True, stale_s=DAY_S)
                stack.enter_context(lock)
            yield

    def _exported_bytes(self, cell_id: str) -> dict[str, int]:
        """What was exported, and how large it is."""
        folder = self.cell_dir(cell_id)
        sizes = []
        if (folder / "images").is_dir():
            with os.scandir(folder / "images") as files:
                sizes = [file.stat().st_size for file in files if file.name.endswith(".png")]
        found = {"images": len(sizes), "images_bytes": sum(sizes)}
        for name in ("latents.safetensors", "samples.parquet"):
            path = folder / name
            found[name] = path.stat().st_size if path.is_file() else 0
        return found

    def num_images(self, cell_id: str) -> int:
        return len(list((self.cell_dir(cell_id) / "images").glob("*.png")))


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"'{path}' is missing. {remedy}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultError(f"'{path}' cannot be read: {error}. {remedy}") from error
    if not isinstance(content, dict):
        raise ResultError(f"'{path}' holds no JSON object. {remedy}")
    return content


def _check_schema(path: Path, content: Mapping[str, Any]) -> None:
    if content.get("schema") not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise ResultError(f"{path}: schema {content.get('schema')!r}, this version reads {known}. Run anew.")


def _with_nan(content: dict[str, Any]) -> dict[str, Any]:
    """Null score values back to NaN."""
    for key in ("scores", "curve"):
        for score in content.get(key) or ():
            if isinstance(score, dict) and score.get("value") is None:
                score["value"] = math.nan
    return content


def scores_frame(store: RunStore) -> pd.DataFrame:
    """Long table of all scores of a run: one row per (cell, metric, step), intervals as two columns."""
    rows = []
    for record in store.records():
        cell = asdict(record.cell)
        del cell["config"]
        for score in (*record.scores, *record.curve):
            row = {**cell, "status": record.status, **asdict(score)}
            low, high = row.pop("interval") or (math.nan, math.nan)
            details = {key: value for key, value in score.details.items() if key != "jackknife"}
            rows.append({**row, "interval_low": low, "interval_high": high, "details": details})
    return pd.DataFrame(rows)
