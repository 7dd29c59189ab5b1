"""Reading bundles: opening an archive, finding the store inside, checking files against the list of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.differences import Fault, Verdict
from bench.errors import ResultError
from bench.store import RunStore

MARK = "bundle.json"
STORE = "store"
SCHEMA = 1


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The run folder at ``path``; an archive (a bundle) is unpacked into a temporary folder for the while.

    Raises AssetError for an archive that is damaged or unsafe, ResultError for one without a run.
    """
    if not path.is_file():
        yield path
        return
    from bench.assets.unpack import unpack

    with tempfile.TemporaryDirectory(prefix="tr0n-bench-") as temporary:
        folder = unpack(path, Path(temporary) / "bundle")
        if not (folder / "run.json").is_file():
            inner = [child for child in folder.iterdir() if (child / "run.json").is_file()]
            if len(inner) != 1:
                raise ResultError(f"'{path}' holds no run. Name a bundle made by tr0n-bench bundle.")
            folder = inner[0]
        yield folder


def is_archive(path: Path) -> bool:
    """Whether a bundle of this name is one file."""
    return path.name.endswith((".tar.gz", ".tgz"))


def report_folder(path: Path) -> Path:
    """Where a run's report goes unless told otherwise: into its folder, or beside its archive."""
    if not path.is_file():
        return path / "report"
    return path.with_name(path.name.removesuffix(".tar.gz").removesuffix(".tgz") + "-report")


def read_mark(folder: Path) -> dict[str, Any] | None:
    """What a bundle says of itself, or None where the folder is none. Raises ResultError."""
    path = folder / MARK
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = content["files"]
        if content["schema"] != SCHEMA or not isinstance(content["images"], bool):
            raise ValueError(f"schema {content['schema']!r}, images {content['images']!r}")
        if not all(isinstance(text, str) for pair in files.items() for text in pair):
            raise ValueError("files are not paths and sums")
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ResultError(f"'{path}' is no list of a bundle's files: {error}. Fetch it anew.") from error
    return content


def files_of(folder: Path) -> dict[str, str]:
    """Every file of a folder but the list itself → sha256, in order of path."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path: _sha256(folder / path) for path in paths if path != MARK}


def file_faults(folder: Path, mark: dict[str, Any]) -> Iterator[Fault]:
    """Files that are not what the bundle's list says; such as came later (a report) are left alone."""
    for path, expected in mark["files"].items():
        file = folder / path
        if not file.resolve().is_relative_to(folder.resolve()):
            yield Fault(MARK, "a path", "inside the bundle", path)
        elif not file.is_file():
            yield Fault(path, "file", "there", "missing")
        elif (found := _sha256(file)) != expected:
            yield Fault(path, "sha256", expected, found)


def bundle_verdict(folder: Path, mark: dict[str, Any]) -> Verdict:
    """On the files of a bundle, by the list of their sums, and on its suite.yaml."""
    told = Verdict("bundle")
    told.check(f"{len(mark['files'])} files", file_faults(folder, mark))

    def suite_faults() -> Iterator[Fault]:
        from bench.recorded import read_suite  # takes torch along, which a report does without

        suite = read_suite(RunStore(folder))
        if (folder / "suite.yaml").read_text(encoding="utf-8") != suite.to_yaml():
            yield Fault("suite.yaml", "suite", "the one of run.json", "another")

    told.check("suite", suite_faults())
    return told


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
