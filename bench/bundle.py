"""Bundles: all that a third party needs to compute a run's tables again, without weights, data or GPU.

::

    run.json, suite.yaml           the resolved suite and where it ran
    cells/<id>/record.json         scores, keys, environment
    cells/<id>/samples.parquet     condition, seed and scores of every sample
    store/…                        artifacts: sample tables, what judges saw, scores (images where asked)
    requirements.lock, README.txt  versions of all packages; what to do
    bundle.json                    the sha256 of every file above

Equal content gives equal bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import payload
from bench.artifacts import ArtifactStore, open_store
from bench.bundle_read import MARK, SCHEMA, STORE, files_of, is_archive
from bench.certify import certificate_place
from bench.errors import ResultError
from bench.needs import Needs, Part
from bench.plan import plan
from bench.recorded import Artifacts, read_artifacts, read_suite, recorded_needs, table_assignment
from bench.scoring import RESULT
from bench.store import Record, RunStore, atomic_path, to_json
from bench.suite import Suite

README = """\
Results of the suite '{name}', run by tr0n-bench {version} (revision {revision}).
This folder holds what its tables come from: ids, seeds, what judges saw, scores and records.
No weights, no data and no GPU are needed to compute the tables again:
  1. install tr0n-bench of that revision:  pip install -c requirements.lock PATH_TO_TR0N_BENCH
  2. check every hash, key and score:      tr0n-bench verify THIS_FOLDER
  3. write tables and plots:               tr0n-bench report THIS_FOLDER
suite.yaml is the suite with every default written out: tr0n-bench run suite.yaml draws it all anew.
cells/<id>/record.json holds a cell's scores, cells/<id>/samples.parquet its conditions and seeds.
store/ holds the artifacts that records name; bundle.json the sha256 of every file.
Images: {images}.
"""


def bundle(run_dir: Path, out: Path, store: ArtifactStore, *, images: bool = False) -> Path:
    """Writes a run as a bundle: a folder, or one file where ``out`` ends in .tar.gz; returns ``out``.

    Raises ResultError where a cell has no record or ``out`` is there already, and ArtifactError (naming it)
    where an artifact that a record names is missing or corrupt; nothing is left behind then.
    """
    if os.path.lexists(out) and (not out.is_dir() or is_archive(out) or any(out.iterdir())):
        raise ResultError(f"'{out}' is there already. Remove it or name another place for the bundle.")
    results = RunStore(run_dir)
    content = results.read_run()
    suite = read_suite(results)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=out.parent) as temporary:
        folder = Path(temporary) / suite.name
        _fill(folder, results, content, suite, store.read_only(), images)
        if is_archive(out):
            with atomic_path(out) as partial:
                _pack(folder, partial)
        else:
            with contextlib.suppress(FileNotFoundError):
                out.rmdir()
            os.replace(folder, out)
    return out


def _fill(
    folder: Path, results: RunStore, content: dict[str, Any], suite: Suite, store: ArtifactStore, images: bool
) -> None:
    copy, inner = RunStore(folder), open_store(str(folder / STORE))
    (folder / "cells").mkdir(parents=True)
    shutil.copyfile(results.run_dir / "run.json", folder / "run.json")
    for cell in plan(suite).cells:
        record = results.read_record(cell.id)
        copy.cell_dir(cell.id).mkdir()
        shutil.copyfile(results.cell_dir(cell.id) / "record.json", copy.cell_dir(cell.id) / "record.json")
        if record.status != "ok":
            continue
        table = results.read_samples(cell.id)
        shutil.copyfile(
            results.cell_dir(cell.id) / "samples.parquet", copy.cell_dir(cell.id) / "samples.parquet"
        )
        named = read_artifacts(record)
        own = recorded_needs(suite, cell, named, table_assignment(table))
        for place in _places(own, named, record, images):
            _copy(store, inner, place)
        if images:
            copy.write_images(cell.id, _images(inner, own))
            copy.write_latents(cell.id, results.read_latents(cell.id))
    (folder / "suite.yaml").write_text(suite.to_yaml(), encoding="utf-8")
    (folder / "requirements.lock").write_text(requirements(), encoding="utf-8")
    readme = README.format(
        name=suite.name,
        version=metadata.version("tr0n-bench"),
        revision=content.get("provenance", {}).get("revision") or "unknown",
        images="in cells/<id>/images" if images else "left out (tr0n-bench bundle --images takes them along)",
    )
    (folder / "README.txt").write_text(readme, encoding="utf-8")
    mark = {"schema": SCHEMA, "images": images, "files": files_of(folder)}
    (folder / MARK).write_bytes(to_json(mark))


def _places(own: Needs, named: Artifacts, record: Record, images: bool) -> Iterator[tuple[str, str, str]]:
    """What of the store a cell's scores come from, and its images where they are asked for."""
    kinds = ("samples", "readout", "images") if images else ("samples", "readout")
    parts = [*own.reference_parts(), *(part for span in own.spans for part in own.span_parts(span))]
    yield from (part.place for part in parts if part.kind in (*kinds, "reference"))
    yield from (Part("score", key, RESULT).place for key in named.scores.values())
    if record.certificate is not None:
        yield certificate_place(own)


def _copy(store: ArtifactStore, inner: ArtifactStore, place: tuple[str, str, str]) -> None:
    if not inner.exists(*place):
        content = store.read(*place)
        inner.write(*place, content, store.header(*place)["inputs"])


def _images(store: ArtifactStore, own: Needs) -> Iterator[bytes]:
    for span in own.spans:
        yield from payload.png_files(payload.unpack(store.read("images", own.samples.key, span.name))[0])


def requirements() -> str:
    """``name==version`` of every installed package, a line each, sorted."""
    found = {}
    for package in metadata.distributions():
        name = package.metadata["Name"]
        if name:
            found[re.sub(r"[-_.]+", "-", name).lower()] = package.version
    return "".join(sorted(f"{name}=={version}\n" for name, version in found.items()))


def _pack(folder: Path, path: Path) -> None:
    """A .tar.gz without times, owners and modes of its own."""
    paths = sorted(item.relative_to(folder.parent).as_posix() for item in folder.rglob("*") if item.is_file())
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in paths:
            info = tarfile.TarInfo(name)
            info.size = (folder.parent / name).stat().st_size
            with (folder.parent / name).open("rb") as file:
                archive.addfile(info, file)
