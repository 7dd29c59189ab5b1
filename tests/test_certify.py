"""Certificates: what equal samples look like, what unequal ones look like, and who carries them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from support import FinishedRun

from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.certify import (
    arrangements,
    certify,
    largest_stream_difference,
    noise_digest,
    read_certificate,
    spread,
)
from bench.cli import main
from bench.needs import needs
from bench.plan import plan
from bench.report.page import write_page
from bench.report.view import RunView
from bench.runner import run
from bench.store import RunStore, comparable
from bench.suite import load_suite

CPU = torch.device("cpu")


def test_arrangements_draw_every_pick_in_other_company():
    ways = {way.name: way for way in arrangements([0, 5, 9, 19], 20, 4)}
    assert ways["one at a time"].batches == ((0,), (5,), (9,), (19,))
    assert ways["seven at a time"].batches[1] == (2, 3, 4, 5, 6, 7, 8)
    assert ways["in reverse order"].batches[0] == (3, 2, 1, 0)
    assert ways["as two shards"].batches == ((0, 2), (5, 7), (9, 11), (17, 19))
    assert {way.tile: way.batches[-1] for way in ways.values() if way.tile != 4} == {
        2: (18, 19),
        8: (16, 17, 18, 19),
    }
    for way in ways.values():
        assert {0, 5, 9, 19} <= {i for batch in way.batches for i in batch}


def test_picks_lie_in_three_tiles():
    assert spread(7, 100, 4) == [0, 1, 3, 49, 51, 97, 99]  # of tiles 0, 12 and 24
    assert spread(3, 10, 4) == [0, 4, 9]
    assert spread(9, 6, 4) == [0, 1, 2, 3, 4, 5]
    assert spread(1, 6, 4) == [0]


def test_the_same_tile_gives_the_same_bits_and_other_tiles_nearly(finished_run: FinishedRun, tmp_path):
    out, url = finished_run.copy(tmp_path)
    cells = certify(finished_run.suite, out, CPU, open_store(url), num=7)
    assert [cell.problem for cell in cells] == [""] * 2
    for cell in cells:
        certificate = cell.certificate
        assert certificate["samples"] == 7
        assert certificate["tiles"] == [4]
        exact = {"largest_pixel_difference": 0, "largest_latent_difference": 0.0, "equal_images": 1.0}
        assert certificate["same_tile"] == exact
        assert certificate["other_tiles"]["largest_pixel_difference"] <= 1
        assert certificate["other_tiles"]["largest_latent_difference"] <= 5e-3
        assert set(certificate["arrangements"]) == {
            "one at a time", "seven at a time", "in reverse order", "as two shards", "tile 2", "tile 8",
        }  # fmt: skip
        assert certificate["largest_stream_difference"] == 0.0


def test_records_carry_certificates_and_later_runs_keep_them(finished_run: FinishedRun, tmp_path):
    out, url = finished_run.copy(tmp_path)
    before = RunStore(out).records()
    assert [record.certificate for record in before] == [None] * 2
    cells = certify(finished_run.suite, out, CPU, open_store(url), num=2)
    after = RunStore(out).records()
    assert [record.certificate for record in after] == [cell.certificate for cell in cells]
    assert [comparable(record) for record in after] == [comparable(record) for record in before]
    again = run(finished_run.suite, out, "cpu", store_url=url)
    assert not again.made  # nothing to do, not even a record to write
    run(finished_run.suite, tmp_path / "elsewhere", "cpu", store_url=url)
    other = RunStore(tmp_path / "elsewhere").records()
    assert [record.certificate for record in other] == [cell.certificate for cell in cells]


def test_a_certificate_is_of_these_seeds_alone(finished_run: FinishedRun, tmp_path):
    store, read = open_store(finished_run.copy(tmp_path)[1]), {}
    certify(finished_run.suite, tmp_path / "run", CPU, store, num=1)
    for seed in (5, 6):
        suite = load_suite(finished_run.path, [f"seed={seed}"])
        cell = plan(suite).cells[0]
        read[seed] = read_certificate(store, needs(Assembly(suite, CPU), store, cell))
    assert read[5]["samples"] == 1
    assert read[6] is None


def test_samples_that_depend_on_their_neighbours_are_found(
    finished_run: FinishedRun, tmp_path, monkeypatch, capsys
):
    from bench.generators.vae import Vae

    load = Vae.load

    def leaky(self, device):
        generator = load(self, device)
        clean = generator.decode
        generator.decode = lambda z: (clean(z) + 0.5 * z.mean()).clamp(-1, 1)
        return generator

    out, url = finished_run.copy(tmp_path)
    monkeypatch.setattr(Vae, "load", leaky)
    command = ["certify", finished_run.path, "--out", out, "--store", url, "--device", "cpu"]
    assert main([str(part) for part in [*command, "--samples", 3, "--set", "curve.num=20"]]) == 1
    assert "allowed are 1" in capsys.readouterr().out
    assert main([str(part) for part in [*command, "--samples", 3, "--tolerance", 255]]) == 0


def test_without_samples_the_message_says_run_first(finished_run: FinishedRun, tmp_path, capsys):
    command = ["certify", str(finished_run.path), "--store", str(tmp_path / "none"), "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 1
    rows = capsys.readouterr().out.splitlines()[2:4]
    assert all("run the suite first" in row for row in rows)
    assert not (tmp_path / "run").exists()


def test_the_command_prints_a_table_of_figures(finished_run: FinishedRun, tmp_path, capsys):
    out, url = finished_run.copy(tmp_path)
    command = ["certify", finished_run.path, "--out", out, "--store", url, "--device", "cpu"]
    assert main([str(part) for part in [*command, "--samples", 2]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split("\t")[:3] == ["cell", "samples", "same tile: pixel"]
    assert [line.split("\t")[1:5] for line in lines[2:4]] == [["2", "0", "0", "1"]] * 2
    assert all(line.endswith("certified") for line in lines[2:4])
    assert lines[4] == "noise on cpu and on the CPU: largest difference 0"


def test_a_broken_stored_image_is_not_certified(finished_run: FinishedRun, tmp_path):
    out, url = finished_run.copy(tmp_path)
    victim = next(Path(url, "images").glob("*/*"))
    content = bytearray(victim.read_bytes())
    content[-100] ^= 1
    victim.write_bytes(content)
    problems = [cell.problem for cell in certify(finished_run.suite, out, CPU, open_store(url), num=2)]
    assert sum("run the suite first" in problem for problem in problems) == 1
    assert sum(problem == "" for problem in problems) == 1


def test_noise_is_the_same_in_another_process():
    code = "from bench.certify import noise_digest; print(noise_digest())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == noise_digest()


def test_a_difference_of_noise_is_seen(monkeypatch):
    from bench.streams import Streams

    assert largest_stream_difference(CPU) == 0.0
    normal = Streams.normal
    calls = []

    def off_once(self, *args, **kwargs):
        calls.append(1)
        values = normal(self, *args, **kwargs)
        return values + 0.25 if len(calls) == 2 else values

    monkeypatch.setattr(Streams, "normal", off_once)
    assert np.isclose(largest_stream_difference(CPU), 0.25, atol=1e-6)


def test_the_report_says_what_was_certified(finished_run: FinishedRun, tmp_path):
    out, _ = finished_run.copy(tmp_path)

    def line() -> str:
        write_page([RunView(out)], tmp_path / "report")
        lines = (tmp_path / "report" / "report.md").read_text().splitlines()
        return next(line for line in lines if line.startswith("- determinism: "))

    assert line() == "- determinism: no cell is certified (tr0n-bench certify SUITE)"
    store = RunStore(out)
    figures = {"same_tile": {"largest_pixel_difference": 0}, "other_tiles": {"largest_pixel_difference": 3}}
    store.write_record(replace(store.records()[1], certificate=figures))
    assert line() == (
        "- determinism: 1 of 2 cells certified; drawn again, pixels differ by at most 0 of 255 "
        "under other batch sizes, orders and shards, by at most 3 under other tiles"
    )
