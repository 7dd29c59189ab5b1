"""The published ledger: every row read, every fault named, and a verdict that tells which field differs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli import main
from bench.errors import DataError, SuiteError
from bench.protocols import Protocol, record_protocol
from bench.protocols.ledger import COLUMNS, Reproduces, chosen_row, default_ledger, read_ledger
from bench.protocols.shipped import SHIPPED
from bench.protocols.verdicts import declared_in, differences, judged
from bench.store import CellInfo, Record, RunStore
from bench.suite import load_suite, suite_from_plain
from bench.types import Score

LEDGER = Path(__file__).parents[2] / "suites" / "published.csv"
HEAD = ",".join(COLUMNS)


def test_the_shipped_ledger_reads_whole():
    rows = read_ledger(LEDGER)
    assert len(rows) == 154
    assert all(row.source for row in rows if row.value)
    by_name = {(row.system, row.metric, row.resolution): row for row in rows}
    tr0n = by_name["TR0N", "FID", None]
    assert (tr0n.low, tr0n.dataset, tr0n.split) == (10.9, "MS-COCO", "val2014")
    assert tr0n.unstated == ["n_samples", "resolution", "extractor"]
    window = by_name["MLPerf SDXL reference", "FID (acceptance window)", None]
    assert (window.low, window.high, window.protocol) == (23.01085758, 23.95007626, "mlperf-sdxl-5k")
    sdxl = next(row for row in rows if row.system == "SDXL")
    assert (sdxl.low, sdxl.high) == (18, math.inf)


def write(folder: Path, *lines: str, head: str = HEAD) -> Path:
    (folder / "ledger.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return folder / "ledger.csv"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("S,FID,abc,,,,,,,,p", r"line 2: value: found 'abc', expected a number, a range"),
        ("S,FID,9-8,,,,,,,,p", r"line 2: value: found '9-8'"),
        ("S,FID,nan,,,,,,,,p", r"value: found 'nan'"),
        ("S,FID,9.1,,,,,,,,", r"line 2: value 9.1 has no source"),
        (",FID,9.1,,,,,,,,p", r"system is blank"),
        ("S,,9.1,,,,,,,,p", r"metric is blank"),
        ("S,FID,9.1,,,3e4,,,,,p", r"n_samples: found '3e4', expected a whole number"),
        ("S,FID,9.1,,,,0,,,,p", r"resolution: found '0'"),
        ("S,FID,9.1,,,,,,tr0n-2024,,p", r"protocol: unknown 'tr0n-2024'\. Did you mean 'tr0n-2023'"),
        ("S,FID,9.1,,,,,,,a,b,p", r"line 2: expected 11 columns\. Quote"),
        ("S,FID,9.1", r"line 2: expected 11 columns"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        read_ledger(write(tmp_path, line))


def test_faulty_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"missing: protocol; unknown: protokol"):
        read_ledger(write(tmp_path, head=HEAD.replace("protocol", "protokol")))
    with pytest.raises(DataError, match=r"line 3: the same as line 2") as caught:
        read_ledger(write(tmp_path, *["S,FID,9.1,,,,,,,,p"] * 2))
    assert "ledger.csv" in str(caught.value)
    with pytest.raises(DataError, match="no row in it"):
        read_ledger(write(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        read_ledger(tmp_path / "none.csv")


def test_a_row_is_chosen_by_as_much_as_it_takes():
    rows = read_ledger(LEDGER)
    wanted = Reproduces(system="StyleGAN-T", metric="FID", tolerance=0.1)
    with pytest.raises(DataError, match=r"several rows fit .*FID 13\.9 on MS-COCO.*FID 7\.3"):
        chosen_row(rows, wanted)
    assert chosen_row(rows, replace(wanted, resolution=64)).low == 7.3
    with pytest.raises(DataError, match=r"no row fits .*'resolution': 32"):
        chosen_row(rows, replace(wanted, resolution=32))
    with pytest.raises(DataError, match=r"no system 'StyleGAN-S'\. Did you mean 'StyleGAN-T'"):
        chosen_row(rows, replace(wanted, system="StyleGAN-S"))


# --- verdicts --------------------------------------------------------------------------------------------


def measured(value: float = 9.0, name: str = "gigagan-30k", n: int = 30_000, **changes) -> Record:
    protocol = Protocol(**{**SHIPPED[name], "name": name, "prompts_sha256": "a" * 64, **changes})
    cell = CellInfo(
        id="c", variant="v", data="coco", condition_kind="text", generator="g", conditioner="f", sampler="s",
        translator=None, num_samples=n, seed=0,
        config={"data": {"kind": "coco", "split": "val2014"}},
    )  # fmt: skip
    said = record_protocol(protocol, num_samples=n, num_reference=protocol.num_reference, judges={})
    score = Score(metric="fid", title="FID", value=value, better="lower", n=n, judge="inception")
    return Record(cell=cell, status="ok", scores=(score,), protocol=said)


GIGAGAN = Reproduces(system="GigaGAN", metric="FID", tolerance=0.1, resolution=256)


@pytest.fixture(scope="module")
def row():
    return next(row for row in read_ledger(LEDGER) if row.protocol == "gigagan-30k" and row.value == "9.06")


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (9.06, "reproduced (within 0.1)"),
        (9.16, "reproduced (within 0.1)"),
        (8.97, "reproduced (within 0.1)"),
        (9.17, "not reproduced (0.11 off, tolerance 0.1)"),
        (8.5, "not reproduced (0.56 off, tolerance 0.1)"),
        (math.nan, "not reproduced (nan off, tolerance 0.1)"),
    ],
)
def test_under_the_published_protocol_the_value_decides(row, value, verdict):
    assert judged(measured(value), GIGAGAN, row).verdict == verdict


def test_another_protocol_is_not_comparable_and_says_which_field(row):
    found = judged(measured(9.06, codec="jpeg-75", extractor_resize="pytorch-fid"), GIGAGAN, row)
    assert found.outcome == "not comparable"
    assert found.differing == {
        "extractor": ("clean", "pytorch-fid"),
        "codec": ("png", "jpeg-75"),
        "extractor_resize": ("clean", "pytorch-fid"),
    }
    assert "codec: png published, jpeg-75 here" in found.verdict
    fewer = judged(measured(9.06, n=500), GIGAGAN, row)
    assert fewer.differing == {"num_samples": (30_000, 500)}


def test_what_a_publication_does_not_state_is_told_and_does_not_decide():
    rows = read_ledger(LEDGER)
    tr0n = next(row for row in rows if row.system == "TR0N")
    wanted = Reproduces(system="TR0N", metric="FID", tolerance=0.5)
    found = judged(measured(10.6, "tr0n-2023", 40_504), wanted, tr0n)
    assert found.verdict == "reproduced (within 0.5; not stated: n_samples, resolution, extractor)"
    # The suite's protocol stands for the publication's: a short run is no failed reproduction.
    short = judged(measured(55.0, "tr0n-2023", 500, codec="png"), wanted, tr0n)
    assert short.differing == {"codec": ("jpeg-75", "png"), "num_samples": (40_504, 500)}
    other = measured(10.6, "tr0n-2023", 40_504)
    other = replace(other, cell=replace(other.cell, config={"data": {"kind": "cifar10"}}))
    assert judged(other, wanted, tr0n).differing == {
        "dataset": ("MS-COCO", "CIFAR-10"),
        "split": ("val2014", "val"),
    }


def test_ranges_bounds_and_gaps(row):
    record = measured(23.5, "mlperf-sdxl-5k", 5000)
    wanted = Reproduces(system="x", metric="FID", tolerance=0)
    window = replace(row, low=23.0, high=23.9, protocol="mlperf-sdxl-5k", n_samples=5000, resolution=None,
                     extractor="")  # fmt: skip
    assert judged(record, wanted, window).outcome == "reproduced"
    assert judged(record, wanted, replace(window, high=23.4)).verdict.startswith("not reproduced (0.1 off")
    assert judged(record, wanted, replace(window, low=18, high=math.inf)).outcome == "reproduced"
    gap = judged(record, wanted, replace(window, low=None, high=None))
    assert gap.verdict == "not comparable (no source gives the published value)"
    failed = replace(record, status="failed", error={"type": "E", "message": "no weights"})
    assert "the cell failed: no weights" in judged(failed, wanted, window).verdict
    assert "no score 'kid'" in judged(record, replace(wanted, score="kid"), window).verdict
    assert differences(record, record.scores[0], window) == {}


# --- in a suite and on the command line ------------------------------------------------------------------


def test_a_suite_declares_what_a_variant_reproduces(small_suite):
    include = {
        "data": "digits", "generator": "vae", "conditioner": "class", "sampler": "prior",
        "reproduces": [{"system": "TR0N", "metric": "FID", "tolerance": 0.5}],
    }  # fmt: skip
    suite = load_suite(small_suite(variants={"include": [include]}))
    assert suite.variants[0].reproduces == (Reproduces(system="TR0N", metric="FID", tolerance=0.5),)
    assert suite_from_plain(suite.resolved(), "again").variants == suite.variants
    broken = small_suite(
        variants={"include": [{**include, "reproduces": [{"system": "TR0N", "metric": "FID"}]}]}
    )
    with pytest.raises(SuiteError, match=r"tolerance: is missing"):
        load_suite(broken)


def test_the_shipped_ledger_is_found_from_anywhere_and_one_at_hand_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_ledger().resolve() == LEDGER.resolve()
    (tmp_path / "suites").mkdir()
    own = write(tmp_path / "suites", "S,FID,9.1,,,,,,,,p").rename(tmp_path / "suites" / "published.csv")
    assert default_ledger().resolve() == own.resolve()


def test_report_published_writes_the_verdicts(finished_run, tmp_path, capsys):
    out, _ = finished_run.copy(tmp_path)
    arguments = ["report", str(out), "--published", "--ledger", str(LEDGER), "--out", str(tmp_path / "r")]
    assert main(arguments) == 1
    assert "declares what it reproduces" in capsys.readouterr().err
    store = RunStore(out)
    content = store.read_run()
    for entry in content["suite"]["variants"]["include"]:
        if entry["sampler"] == "tr0n":
            entry["reproduces"] = [{"system": "TR0N", "metric": "FID", "tolerance": 0.5}]
    store.write_run({key: value for key, value in content.items() if key != "schema"})
    declared = declared_in(store.read_run(), store.records())
    assert [cell.partition("-")[0] for cell in declared] == ["vae"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "not comparable (dataset: MS-COCO published, digits here" in printed
    assert "10.9" in (tmp_path / "r" / "published.md").read_text()
    assert (tmp_path / "r" / "published.csv").read_text().count("\n") == 2
