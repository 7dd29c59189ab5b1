"""Bundles: whole without weights and data, equal bytes for equal content, and no tampering unseen."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import SMALL_SUITE, FinishedRun

from bench import payload
from bench.artifacts import open_store
from bench.bundle import bundle
from bench.bundle_read import files_of, opened
from bench.cli import main
from bench.runner import run
from bench.store import RunStore, comparable
from bench.suite import load_suite


@pytest.fixture(scope="module")
def archive(finished_run: FinishedRun, tmp_path_factory) -> Path:
    """A bundle as one file, without images."""
    return bundle(
        finished_run.out, tmp_path_factory.mktemp("bundle") / "small.tar.gz", open_store(finished_run.url)
    )


@pytest.fixture
def folder(archive: Path, tmp_path) -> Path:
    """The bundle as a folder of its own, to be spoilt."""
    with opened(archive) as unpacked:
        return Path(shutil.copytree(unpacked, tmp_path / "bundle"))


def call(*arguments: Any) -> int:
    return main([str(argument) for argument in arguments])


def test_a_bundle_holds_what_tables_come_from_and_no_more(archive: Path, finished_run: FinishedRun):
    cells = RunStore(finished_run.out).read_run()["cells"]
    with tarfile.open(archive) as opened_archive:
        names = {name.partition("/")[2] for name in opened_archive.getnames()}
        assert {name.partition("/")[0] for name in opened_archive.getnames()} == {"small"}
    plain = {name for name in names if not name.startswith("store/")}
    assert plain == {
        "run.json", "suite.yaml", "requirements.lock", "README.txt", "bundle.json",
        *(f"cells/{cell}/{file}" for cell in cells for file in ("record.json", "samples.parquet")),
    }  # fmt: skip
    kinds = [name.split("/")[1] for name in names - plain]
    # two cells: final samples and their curve were judged; both are compared with one reference
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "samples": 2, "readout": 4, "reference": 1, "score": 4,
    }  # fmt: skip


def test_suite_lock_and_readme_are_what_they_say(folder: Path, finished_run: FinishedRun):
    assert load_suite(folder / "suite.yaml") == finished_run.suite
    lines = (folder / "requirements.lock").read_text().splitlines()
    assert lines == sorted(lines)
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in lines)
    assert {f"torch=={metadata.version('torch')}", f"tr0n-bench=={metadata.version('tr0n-bench')}"} <= set(
        lines
    )
    readme = (folder / "README.txt").read_text().splitlines()
    assert len(readme) == 10
    assert "'small'" in readme[0]


def test_equal_content_gives_equal_bytes(archive: Path, finished_run: FinishedRun, tmp_path):
    out, url = finished_run.copy(tmp_path)  # other folders, other times of change
    again = bundle(out, tmp_path / "again.tar.gz", open_store(url))
    assert again.read_bytes() == archive.read_bytes()
    as_folder = bundle(out, tmp_path / "folder", open_store(url))
    with opened(archive) as unpacked:
        assert files_of(as_folder) == files_of(unpacked)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_a_bundle_verifies_with_its_own_store(form, archive, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TR0N_BENCH_STORE", str(tmp_path / "empty"))
    assert call("verify", archive if form == "archive" else folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines[2:4]] == ["bundle", "run"]
    for line in lines[4:6]:
        _, stands, faults, unchecked = line.split("\t")
        assert {"keys of scores", "stored scores", "table"} <= set(stands.split(", "))
        assert re.search(r"\d\d scores, \d points of curves", stands)
        assert faults == "0"
        assert unchecked.startswith("not in the store, and in no score: images")
    assert lines[-1] == "every record stands"
    assert call("verify", folder, "--store", tmp_path / "empty") == 1


def test_a_bundle_reports_without_images(archive: Path, folder: Path, tmp_path):
    assert call("report", folder) == 0
    shutil.copy(archive, tmp_path / "b.tar.gz")
    assert call("report", tmp_path / "b.tar.gz") == 0
    for page in (folder / "report" / "report.md", tmp_path / "b-report" / "report.md"):
        text = page.read_text()
        assert "FID" in text
        assert "grid-" not in text
    assert not list(folder.rglob("grid-*"))
    assert call("verify", folder) == 0  # what came later does no harm


def test_images_come_along_where_asked(finished_run: FinishedRun, tmp_path, capsys):
    out = tmp_path / "with-images"
    assert call("bundle", finished_run.out, "--store", finished_run.url, "--out", out, "--images") == 0
    first, second = RunStore(finished_run.out), RunStore(out)
    for record in first.records():
        cell = record.cell.id
        assert comparable(record) == comparable(second.read_record(cell))
        assert np.array_equal(first.read_images(cell), second.read_images(cell))
    assert call("verify", out) == 0
    assert "images" in capsys.readouterr().out.splitlines()[-2].split("\t")[1].split(", ")
    assert call("report", out) == 0
    assert list(out.rglob("grid-*"))
    second.image_path(second.read_run()["cells"][0], 3).unlink()
    assert call("verify", out) == 1


# --- tampering -----------------------------------------------------------------------------------


def remake_list(folder: Path) -> None:
    """What a forger does who knows of the list of sums."""
    mark = json.loads((folder / "bundle.json").read_text())
    mark["files"] = {path: sums for path, sums in files_of(folder).items() if not path.startswith("report/")}
    (folder / "bundle.json").write_text(json.dumps(mark))


def readout(folder: Path, cell: int = 1) -> Path:
    run_store = RunStore(folder)
    record = run_store.read_record(run_store.read_run()["cells"][cell])
    return next((folder / "store" / "readout" / record.artifacts["readouts"]["digits"]).iterdir())


def flip_features(folder: Path) -> list[str]:
    path = readout(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return ["/".join(path.parts[-3:]), "is corrupt: sha256 is"]


def forge_features(folder: Path) -> list[str]:
    place = readout(folder).parts[-3:]
    store = open_store(str(folder / "store"))
    arrays, meta = payload.unpack(store.read(*place))
    arrays["features"] = arrays["features"] + np.float32(0.01) * np.arange(20, dtype=np.float32)[:, None]
    store.write(*place, payload.pack(arrays, meta), store.header(*place)["inputs"])
    return ["score fid (digits)"]


def change_score(folder: Path) -> list[str]:
    path = sorted(folder.glob("cells/*/record.json"))[0]
    content = json.loads(path.read_text())
    (fid,) = (score for score in content["scores"] if score["metric"] == "fid")
    expected, fid["value"] = fid["value"], 1.25
    path.write_text(json.dumps(content))
    return [f"record.json\tscore fid (digits)\t{expected!r}\t1.25"]


def swap_records(folder: Path) -> list[str]:
    a, b = sorted(folder.glob("cells/*/record.json"))
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    one, two = a.parent.name, b.parent.name
    return [f"record.json\tcell.id\t{one}\t{two}", f"record.json\tcell.id\t{two}\t{one}"]


def delete_readout(folder: Path) -> list[str]:
    path = readout(folder)
    path.unlink()
    return [f"{'/'.join(path.parts[-3:])}\tartifact\tsound\tmissing"]


def change_seed(folder: Path) -> list[str]:
    run_store = RunStore(folder)
    cell = run_store.read_run()["cells"][0]
    table = run_store.read_samples(cell)
    table.loc[2, "seed"] = 11
    run_store.write_samples(cell, table)
    return ["samples.parquet\tcolumn seed, row 2", "\t11"]


@pytest.mark.parametrize("listed", [False, True], ids=["sums kept", "sums remade"])
@pytest.mark.parametrize(
    "tamper", [flip_features, forge_features, change_score, swap_records, delete_readout, change_seed]
)
def test_tampering_is_named_even_where_the_list_of_sums_was_remade(folder: Path, tamper, listed, capsys):
    words = tamper(folder)
    if listed:
        remake_list(folder)
    assert call("verify", folder) == 1
    text = capsys.readouterr().out
    assert all(word in text for word in words)
    assert bool(re.search(r"^bundle\t\d+ files, suite\t0", text, re.MULTILINE)) == listed


@pytest.mark.parametrize("file", ["README.txt", "requirements.lock", "suite.yaml"])
def test_a_changed_file_of_text_is_named(folder: Path, file, capsys):
    (folder / file).write_text((folder / file).read_text() + "# more\n")
    assert call("verify", folder) == 1
    assert f"bundle\t{file}\tsha256" in capsys.readouterr().out


def test_a_list_of_sums_cannot_look_outside(folder: Path, tmp_path, capsys):
    (tmp_path / "secret").write_text("x")
    mark = json.loads((folder / "bundle.json").read_text())
    mark["files"]["../secret"] = "0" * 64
    (folder / "bundle.json").write_text(json.dumps(mark))
    assert call("verify", folder) == 1
    assert "inside the bundle\t../secret" in capsys.readouterr().out
    (folder / "bundle.json").write_text("{}")
    assert call("verify", folder) == 1
    assert "no list of a bundle's files" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_archive_is_refused(archive: Path, tmp_path, kept, capsys):
    content = archive.read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[: int(len(content) * kept)])
    assert call("verify", tmp_path / "cut.tar.gz") == 1
    assert "is damaged" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tar.gz"]


@pytest.mark.parametrize(
    ("name", "kind"), [("../escaped", tarfile.REGTYPE), ("/escaped", tarfile.REGTYPE), ("a", tarfile.SYMTYPE)]
)
@pytest.mark.parametrize("command", ["verify", "report"])
def test_an_archive_cannot_escape(command, name, kind, tmp_path, capsys):
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as evil:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "/etc/passwd", 1 if kind == tarfile.REGTYPE else 0
        evil.addfile(info, io.BytesIO(b"x"))
    assert call(command, tmp_path / "evil.tar.gz") == 1
    assert "Nothing was unpacked" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["evil.tar.gz"]


def test_an_archive_without_a_run_is_refused(tmp_path, capsys):
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as other:
        other.addfile(tarfile.TarInfo("a/readme"))
    assert call("verify", tmp_path / "other.tar.gz") == 1
    assert "holds no run" in capsys.readouterr().err


def test_cells_of_a_run_cannot_look_outside(folder: Path, tmp_path, capsys):
    (tmp_path / "outside").mkdir()
    content = json.loads((folder / "run.json").read_text())
    shutil.copy(folder / "cells" / content["cells"][0] / "record.json", tmp_path / "outside")
    content["cells"] = ["../../outside"]
    (folder / "run.json").write_text(json.dumps(content))
    assert call("report", folder) == 1
    assert "is no id of a cell" in capsys.readouterr().err


# --- making --------------------------------------------------------------------------------------


def test_a_missing_artifact_leaves_no_bundle(finished_run: FinishedRun, tmp_path, capsys):
    out, url = finished_run.copy(tmp_path)
    victim = next(Path(url, "reference").glob("*/*"))
    victim.unlink()
    for target in ("b.tar.gz", "b"):
        assert call("bundle", out, "--store", url, "--out", tmp_path / "made" / target) == 1
        assert victim.name in capsys.readouterr().err
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize("name", ["there", "there.tar.gz"])
def test_what_is_there_is_not_overwritten(finished_run: FinishedRun, tmp_path, name, capsys):
    target = tmp_path / name
    if name == "there":
        target.mkdir()
        (target / "mine").write_text("mine")
    else:
        target.write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert call("bundle", finished_run.out, "--store", finished_run.url, "--out", target) == 1
    assert "is there already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_without_weights_and_data_scores_are_computed_and_keys_told_unchecked(tmp_path, capsys):
    from bench.worlds.shapes_source import Shapes
    from bench.zoo.weights import WEIGHTS_DIR

    shapes = Shapes(num_val=6)
    shapes.load("val", tmp_path / "made")
    root = Path(shutil.copytree(shapes.folder("val", tmp_path / "made"), tmp_path / "mine" / "coco"))
    weights = Path(shutil.copy(WEIGHTS_DIR / "digits-vae.safetensors", tmp_path / "mine"))
    content = {key: SMALL_SUITE[key] for key in ("name", "seed", "samplers", "judges", "protocol")}
    content |= {
        "data": {"coco": {"kind": "coco", "root": str(root)}},
        "generators": {"vae": {"kind": "vae", "weights": str(weights)}},
        "conditioners": {"text": {"kind": "clip", "model": "shapes-clip-guide", "views": 0}},
        "metrics": {"fid": SMALL_SUITE["metrics"]["fid"]},
        "samples": {"num": 6, "tile": 4},
        "variants": {
            "include": [{"data": "coco", "generator": "vae", "conditioner": "text", "sampler": "prior"}]
        },
    }
    path = tmp_path / "coco.yaml"
    path.write_text(yaml.safe_dump(content))
    url = str(tmp_path / "store")
    assert run(load_suite(path), tmp_path / "run", "cpu", store_url=url).num_failed == 0
    made = bundle(tmp_path / "run", tmp_path / "b.tar.gz", open_store(url))
    assert call("verify", made) == 0
    assert "3 of 3 keys" in capsys.readouterr().out
    for gone in (tmp_path / "mine", tmp_path / "made", tmp_path / "store", tmp_path / "run"):
        shutil.rmtree(gone)
    assert call("verify", made) == 0
    (row,) = capsys.readouterr().out.splitlines()[4:5]
    _, stands, faults, unchecked = row.split("\t")
    assert faults == "0"
    assert not re.search(r"\d keys", stands)
    assert {"seeds", "spans", "keys of scores", "stored scores", "table"} <= set(stands.split(", "))
    assert "weight file" in unchecked
    assert "conditions against the data" in unchecked
    # without the data, the span's name still tells a caption that was not drawn for
    with opened(made) as unpacked:
        forged = Path(shutil.copytree(unpacked, tmp_path / "forged"))
    (cell,) = RunStore(forged).read_run()["cells"]
    table = RunStore(forged).read_samples(cell)
    table.loc[1, "text"] = "a purple cow"
    RunStore(forged).write_samples(cell, table)
    remake_list(forged)
    assert call("verify", forged) == 1
    assert "conditions and seeds of samples 0 to 5" in capsys.readouterr().out
