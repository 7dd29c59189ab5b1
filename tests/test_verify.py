"""Whether a record stands: what is sound passes, and everything that was touched is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import FinishedRun

from bench import payload
from bench.artifacts import open_store
from bench.cli import main
from bench.differences import Verdict
from bench.errors import ArtifactError
from bench.store import Record, RunStore
from bench.verify import verify


@pytest.fixture
def spoiled(finished_run: FinishedRun, tmp_path) -> Spoiled:
    return Spoiled(finished_run, tmp_path)


class Spoiled:
    """A copy of a finished run: ``cells`` are its ids, the second one of TR0N."""

    def __init__(self, finished: FinishedRun, folder: Path):
        self.out, self.url = finished.copy(folder)
        self.results = RunStore(self.out)
        self.cells = self.results.read_run()["cells"]
        self.named = self.results.read_record(self.cells[1]).artifacts

    def verdicts(self) -> list[Verdict]:
        return verify(self.out, open_store(self.url))

    def faults(self) -> list[tuple[str, str, str, str, str]]:
        """(cell or "run", where, what, expected, found) of all that does not stand."""
        return [
            (told.cell, fault.where, fault.what, fault.expected, fault.found)
            for told in self.verdicts()
            for fault in told.faults
        ]

    def record(self, change: Callable[[dict[str, Any]], Any], cell: int = 1) -> None:
        """Changes a record's JSON."""
        path = self.results.cell_dir(self.cells[cell]) / "record.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def table(self, column: str, row: int, value: Any) -> None:
        """Changes a cell of the second cell's table."""
        table = self.results.read_samples(self.cells[1])
        table.loc[row, column] = value
        self.results.write_samples(self.cells[1], table)

    def readout(self) -> Path:
        """The second cell's first readout of final samples."""
        folder = Path(self.url, "readout", self.named["readouts"]["digits"])
        return sorted(folder.iterdir())[0]


def flip(path: Path, at: int = -200) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def contents(*folders: Path | str) -> dict[str, tuple[bytes, int]]:
    """Every file below the folders: its bytes and the time of its last change."""
    files = [path for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_finished_run_stands_as_a_whole(spoiled: Spoiled):
    whole, prior, tr0n = spoiled.verdicts()
    assert (whole.cell, whole.stands, whole.faults) == ("run", ["cells"], [])
    assert [prior.cell, tr0n.cell] == spoiled.cells
    assert tr0n.stands == [
        "cell", "7 of 7 keys", "judges", "spans", "9 artifacts", "timing", "protocol", "18 scores",
        "6 points of curves",
        "keys of scores", "stored scores", "table", "latents", "images",
    ]  # fmt: skip
    for told in (prior, tr0n):
        assert (told.faults, told.unchecked) == ([], [])


def test_verify_changes_nothing_even_where_an_artifact_is_broken(spoiled: Spoiled, capsys):
    flip(spoiled.readout())
    before = contents(spoiled.out, spoiled.url)
    assert main(["verify", str(spoiled.out), "--store", spoiled.url]) == 1
    assert contents(spoiled.out, spoiled.url) == before
    assert not Path(spoiled.url, "set-aside").exists()
    assert spoiled.readout().name in capsys.readouterr().out


def test_a_flipped_byte_of_features_is_named_and_scores_are_not_vouched_for(spoiled: Spoiled):
    flip(spoiled.readout())
    ((cell, where, _, _, found),) = spoiled.faults()
    assert cell == spoiled.cells[1]
    assert where == "/".join(spoiled.readout().parts[-3:])
    assert "sha256" in found
    told = spoiled.verdicts()[2]
    assert not any("scores" in name for name in told.stands)
    assert "scores: an artifact that they come from is not sound" in told.unchecked


@pytest.mark.parametrize("kind", ["samples", "images", "readout", "reference", "score"])
def test_a_missing_artifact_is_named(spoiled: Spoiled, kind):
    victim = sorted(Path(spoiled.url, kind).glob("*/*"))[0]
    victim.unlink()
    faults = spoiled.faults()
    assert {fault[1] for fault in faults} == {"/".join(victim.parts[-3:])}
    assert {fault[4] for fault in faults} == {"missing"}


@pytest.mark.parametrize(("factor", "stands"), [(1 + 1e-7, False), (1 + 1e-12, True)])
def test_a_changed_score_is_named_with_both_values(spoiled: Spoiled, factor, stands):
    fid = next(score for score in spoiled.results.records()[1].scores if score.metric == "fid")

    def change(content):
        for score in content["scores"]:
            if score["metric"] == "fid":
                score["value"] *= factor

    spoiled.record(change)
    expected = (spoiled.cells[1], "record.json", "score fid (digits)", repr(fid.value))
    assert [fault[:4] for fault in spoiled.faults()] == ([] if stands else [expected])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c["curve"][0].update(value=0.123), "curve fid (digits) at step 0"),
        (lambda c: c["scores"].pop(0), "score fid (digits)"),
        (lambda c: c["scores"][0].update(n=21), "score fid (digits), n"),
        (
            lambda c: c["scores"][0]["details"].update(n_reference=7),
            "score fid (digits), details.n_reference",
        ),
        (lambda c: c["timing"]["phase_s"].update(refine=1e-6), "timing.phase_s.refine"),
        (lambda c: c.update(failed_samples=1), "failed_samples"),
        (lambda c: c.update(tiles=[8]), "tiles[0]"),
        (lambda c: c["cell"].update(seed=6), "cell.seed"),
        (lambda c: c["cell"]["config"]["sampler"].update(steps=4), "cell.config.sampler.steps"),
        (lambda c: c["artifacts"].update(translator="0" * 16), "key of translator"),
        (lambda c: c["artifacts"]["scores"].update(fid="0" * 16), "key of scores.fid"),
    ],
)
def test_a_changed_record_is_named(spoiled: Spoiled, change, what):
    spoiled.record(change)
    faults = spoiled.faults()
    assert {fault[0] for fault in faults} == {spoiled.cells[1]}
    named = {fault[2] for fault in faults if fault[1] == "record.json"}
    # a score's key that names nothing is missing in the store as well, and is told as such
    assert named == {what} or (what == "key of scores.fid" and faults[0][1] == f"score/{'0' * 16}/result")


def test_samples_of_another_key_do_not_stand(spoiled: Spoiled):
    other = spoiled.results.read_record(spoiled.cells[0]).artifacts["samples"]
    spoiled.record(lambda content: content["artifacts"].update(samples=other))
    what = {fault[2] for fault in spoiled.faults()}
    assert {"key of samples", "column energy, row 0", "latents"} <= what


def test_swapped_records_are_named(spoiled: Spoiled):
    first, second = (spoiled.results.cell_dir(cell) / "record.json" for cell in spoiled.cells)
    first_content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_content)
    ids = [(fault[0], fault[3], fault[4]) for fault in spoiled.faults() if fault[2] == "cell.id"]
    one, two = spoiled.cells
    assert ids == [(one, one, two), (two, two, one)]


def test_forged_features_with_a_sound_checksum_give_other_scores(spoiled: Spoiled):
    part = spoiled.readout().parts[-3:]
    store = open_store(spoiled.url)
    arrays, meta = payload.unpack(store.read(*part))
    arrays["features"] = arrays["features"] * np.float32(1.01)
    store.write(*part, payload.pack(arrays, meta), store.header(*part)["inputs"])
    named = {(fault[1], fault[2]) for fault in spoiled.faults()}
    assert named >= {("record.json", "score fid (digits)"), ("score artifact", "score fid (digits)")}
    assert {what.split(",")[0] for _, what in named} == {"score fid (digits)"}  # its interval and bias, too


def test_a_forged_score_artifact_is_named(spoiled: Spoiled):
    place = ("score", spoiled.named["scores"]["accuracy"], "result")
    store = open_store(spoiled.url)
    scores, columns = payload.unpack_scores(store.read(*place))
    forged = [type(score)(**{**vars(score), "value": 1.5}) for score in scores]
    store.write(*place, payload.pack_scores(forged, columns), store.header(*place)["inputs"])
    faults = spoiled.faults()
    assert {fault[1] for fault in faults} == {"score artifact"}
    assert "score class-accuracy (digits)" in {fault[2] for fault in faults}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("seed", 3),
        ("condition_id", "class:digit=9"),
        ("energy", 0.5),
        ("target-probability", 7.0),
        ("text", "x"),
    ],
)
def test_a_changed_table_is_named_by_column_and_row(spoiled: Spoiled, column, value):
    spoiled.table(column, 3, value)
    ((cell, where, what, _, found),) = spoiled.faults()
    assert (cell, where, what) == (spoiled.cells[1], "samples.parquet", f"column {column}, row 3")
    assert found == str(value)


def test_changed_missing_and_extra_image_files_are_named(spoiled: Spoiled):
    path = spoiled.results.image_path(spoiled.cells[1], 4)
    with Image.open(path) as image:
        Image.eval(image, lambda value: value ^ 1).save(path)
    spoiled.results.image_path(spoiled.cells[1], 5).unlink()
    shutil.copy(path, spoiled.results.image_path(spoiled.cells[0], 20))
    assert [(fault[0], fault[1], fault[4]) for fault in spoiled.faults()] == [
        (spoiled.cells[0], "images", "21"),
        (spoiled.cells[1], "images/000004.png", "another"),
        (spoiled.cells[1], "images/000005.png", "missing"),
    ]


def test_changed_and_broken_latents_are_named(spoiled: Spoiled):
    spoiled.results.write_latents(spoiled.cells[0], np.zeros((20, 16), np.float32))
    (spoiled.results.cell_dir(spoiled.cells[1]) / "latents.safetensors").write_bytes(b"?")
    assert [fault[:2] for fault in spoiled.faults()] == [
        (cell, "latents.safetensors") for cell in spoiled.cells
    ]


def test_a_failed_cell_is_told_and_a_missing_record_does_not_stand(spoiled: Spoiled, capsys):
    record = spoiled.results.read_record(spoiled.cells[0])
    failed = Record(cell=record.cell, status="failed", error={"type": "SamplingError", "message": "all NaN"})
    spoiled.results.write_record(failed)
    assert main(["verify", str(spoiled.out), "--store", spoiled.url]) == 0
    assert "the cell failed: SamplingError: all NaN" in capsys.readouterr().out
    (spoiled.results.cell_dir(spoiled.cells[1]) / "record.json").unlink()
    ((cell, _, _, _, found),) = spoiled.faults()
    assert cell == spoiled.cells[1]
    assert "is missing" in found


@pytest.mark.parametrize(
    "artifacts", [{}, {"samples": 3}, {"samples": {"key": "../../x", "spans": ["a"]}}, None]
)
def test_a_record_without_form_is_a_fault_not_a_crash(spoiled: Spoiled, artifacts):
    def change(content):
        content["artifacts"] = (
            artifacts if artifacts is not None else {**content["artifacts"], "readouts": {}}
        )

    spoiled.record(change)
    ((cell, where, what, _, found),) = spoiled.faults()
    assert (cell, where, what) == (spoiled.cells[1], "cell", "cannot be checked")
    assert found.startswith("artifacts")


def test_a_changed_suite_does_not_fit_its_cells(spoiled: Spoiled):
    run = spoiled.results.read_run()
    run["suite"]["seed"] = 6
    spoiled.results.write_run(run)
    assert {fault[0] for fault in spoiled.faults()} > {"run"}
    assert main(["verify", str(spoiled.out), "--store", spoiled.url]) == 1


def test_a_changed_certificate_is_named(spoiled: Spoiled, finished_run: FinishedRun):
    import torch

    from bench.certify import certify

    certify(finished_run.suite, spoiled.out, torch.device("cpu"), open_store(spoiled.url), num=1)
    assert spoiled.faults() == []
    assert "certificate" in spoiled.verdicts()[2].stands
    spoiled.record(lambda c: c["certificate"]["same_tile"].update(equal_images=0.5))
    ((_, where, what, expected, found),) = spoiled.faults()
    assert (where, what) == ("record.json", "certificate.same_tile.equal_images")
    assert (expected, found) == ("1.0", "0.5")


def test_a_read_only_store_refuses_to_change(finished_run: FinishedRun):
    store = open_store(finished_run.url).read_only()
    for action in (
        lambda: store.write("kind", "key", "name", b""),
        lambda: store.remove("kind", "key", "name"),
        lambda: store.lock("kind", "key", "name"),
        store.sweep,
    ):
        with pytest.raises(ArtifactError, match="reading only"):
            action()
    assert not os.path.exists(os.path.join(finished_run.url, "kind"))


def test_verify_of_nothing_is_one_clear_error(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "none")]) == 1
    assert "run.json' is missing" in capsys.readouterr().err


def test_code_that_a_run_names_is_not_run_unless_allowed(spoiled: Spoiled, tmp_path, capsys):
    run = spoiled.results.read_run()
    victim = tmp_path / "victim"
    run["suite"]["generators"]["own"] = {
        "kind": "python",
        "target": "os:mkdir",
        "args": {"path": str(victim)},
    }
    spoiled.results.write_run(run)
    command = ["verify", str(spoiled.out), "--store", spoiled.url]
    assert main(command) == 1
    assert "code of its own (generators.own)" in capsys.readouterr().err
    assert not victim.exists()
    assert main([*command, "--python"]) == 1  # allowed, and no generator
    assert victim.is_dir()


def test_a_run_without_a_suite_is_one_clear_error(spoiled: Spoiled, tmp_path, capsys):
    run = spoiled.results.read_run()
    del run["suite"]
    spoiled.results.write_run(run)
    for command in (["verify", str(spoiled.out)], ["bundle", str(spoiled.out), "--out", str(tmp_path / "b")]):
        assert main([*command, "--store", spoiled.url]) == 1
        assert "holds no suite" in capsys.readouterr().err
