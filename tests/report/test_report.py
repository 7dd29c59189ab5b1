"""The report: what is bold, what is escaped, what fails; and the pictures, read back as pixels."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.errors import ResultError
from bench.payload import to_pngs
from bench.report.page import write_page
from bench.report.tables import escape, groups, markdown_table, phase_table
from bench.report.view import RunView
from bench.store import CellInfo, Record, RunStore
from bench.types import Score, Timing

EVIL = "a|b\n<img src=x onerror=alert(1)> **bold** [link](javascript:x) `code` $x$"
SAMPLERS = ("prior", "tr0n")
COLORS = {"prior": (255, 0, 0), "tr0n": (0, 0, 255)}


def make_record(
    sampler: str, generator: str = "gan", fid: float = 1.0, accuracy: float = 0.5, **changes
) -> Record:
    cell = CellInfo(
        id=f"{generator}-{sampler}", variant=sampler, data="shapes", condition_kind="text",
        generator=generator, conditioner="clip-guide", sampler=sampler, translator=None, num_samples=4,
        seed=1,
    )  # fmt: skip
    scores = (
        Score(metric="fid", title="FID", value=fid, better="lower", n=4, judge="judge"),
        Score(metric="class-accuracy", title="class accuracy", value=accuracy, n=4, judge="judge"),
        Score(
            metric="seconds-per-image", title="seconds per image", value=0.25, unit="s/image",
            better="lower", n=4,
        ),
    )  # fmt: skip
    curve = tuple(
        Score(metric="fid", title="FID", value=fid * k, better="lower", n=4, step=10 // k) for k in (2, 1)
    )
    counts = dict.fromkeys(
        ("generator_forwards", "generator_backwards", "auxiliary_forwards", "auxiliary_backwards"), 8
    )
    timing = Timing(
        num_samples=4, batch_size=2, phase_s={"refine": 0.8, "decode": 0.2}, batch_s=(0.5, 0.5),
        batch_n=(2, 2), evaluations=counts, peak_memory_gib=1.0,
    )  # fmt: skip
    fields = {"cell": cell, "status": "ok", "scores": scores, "curve": curve, "timing": timing}
    return Record(**{**fields, **changes})


@pytest.fixture
def make_run(tmp_path: Path):
    def make(records: list[Record], name: str = "run", images: bool = True) -> Path:
        store = RunStore(tmp_path / name)
        suite = {"description": EVIL, "seed": 1}
        store.write_run(
            {"suite_name": "s", "suite": suite, "cells": [r.cell.id for r in records], "provenance": {}}
        )
        for record in records:
            store.write_record(record)
            if images and record.status == "ok":
                color = np.array(COLORS[record.cell.sampler], np.uint8)[None, :, None, None]
                store.write_images(record.cell.id, to_pngs(np.broadcast_to(color, (4, 3, 8, 8))))
                table = {"index": range(4), "condition_id": ["p", "q"] * 2, "text": [EVIL, "q"] * 2}
                store.write_samples(record.cell.id, pd.DataFrame(table))
        return store.run_dir

    return make


def rows_of(table: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]


def test_the_best_of_each_generator_is_bold_by_direction():
    records = [
        make_record("prior", fid=1.0, accuracy=0.1),
        make_record("tr0n", fid=2.0, accuracy=0.9),
        make_record("prior", "vae", fid=9.0, accuracy=0.2),
        make_record("tr0n", "vae", fid=8.0, accuracy=0.2),
    ]
    (group,) = groups(records)
    heads, _, *rows = [[cell.strip() for cell in row] for row in rows_of(markdown_table(group))]
    fid, accuracy, seconds = (
        heads.index(h) for h in ("FID ↓", "class accuracy ↑", "seconds per image ↓ (s/image)")
    )
    assert [row[fid] for row in rows] == ["**1.000**", "2.00", "9.00", "**8.00**"]
    assert [row[accuracy] for row in rows] == ["0.100", "**0.900**", "**0.200**", "**0.200**"]
    assert [row[2] for row in rows] == ["4"] * 4
    assert all(row[seconds] == "**0.2500**" for row in rows)


def test_a_failed_cell_is_a_row_with_its_error_and_is_never_best():
    failed = make_record(
        "prior", status="failed", error={"type": "E", "message": EVIL}, scores=(), timing=None
    )
    (group,) = groups([failed, make_record("tr0n")])
    table = markdown_table(group)
    lengths = {len(row) for row in rows_of(table)}
    assert len(lengths) == 1
    assert "failed" in table
    assert "<img" not in table


def test_a_value_that_is_not_finite_is_said_and_never_best():
    (group,) = groups([make_record("prior", fid=float("nan")), make_record("tr0n", fid=3.0)])
    table = markdown_table(group)
    assert "not finite" in table
    assert "**3.00**" in table


@pytest.mark.parametrize("text", [EVIL, "\x1b[31mred", "‮reversed", "# title", "~~x~~", "![i](u)"])
def test_untrusted_text_stays_in_its_cell(text):
    out = escape(text)
    assert "\n" not in out
    assert not re.search(r"(?<!\\)[|<`*\[\]]", out)
    assert all(character.isprintable() for character in out)


def test_the_page_links_only_files_that_exist_and_tells_everything(make_run, tmp_path):
    run_dir = make_run([make_record(sampler) for sampler in SAMPLERS])
    files = write_page([RunView(run_dir)], tmp_path / "out")
    page = (tmp_path / "out" / "report.md").read_text()
    links = re.findall(r"(?<!\\)\]\(([^)]+)\)", page)
    assert links
    for link in links:
        assert (tmp_path / "out" / link).is_file(), link
    assert all(path.exists() for path in files)
    assert "Guided by clip-guide; judged by judge." in page
    assert "<img" not in page
    with (tmp_path / "out" / "table-shapes-text.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["fid"]) for row in rows] == [1.0, 1.0]
    assert {row["status"] for row in rows} == {"ok"}


def test_the_grid_shows_each_sampler_in_its_column(make_run, tmp_path):
    run_dir = make_run([make_record(sampler) for sampler in SAMPLERS])
    write_page([RunView(run_dir)], tmp_path / "out")
    image = np.asarray(Image.open(tmp_path / "out" / "grid-shapes-text-gan.png").convert("RGB")).astype(int)
    columns = {}
    for name, color in COLORS.items():
        hits = (np.abs(image - np.array(color)).sum(2) < 30).nonzero()
        assert len(hits[0]) > 200, f"no {name} images in the grid"
        columns[name] = hits[1]
    assert columns["prior"].max() < columns["tr0n"].min()


def test_figures_show_their_points_and_are_the_same_twice(make_run, tmp_path):
    run_dir = make_run([make_record("prior", fid=1.0), make_record("tr0n", fid=2.0)])
    for out in ("a", "b"):
        write_page([RunView(run_dir)], tmp_path / out)
    for name in ("frontier.png", "frontier.svg", "steps.png", "steps.svg"):
        first, second = ((tmp_path / out / name).read_bytes() for out in ("a", "b"))
        assert first == second, name
    image = np.asarray(Image.open(tmp_path / "a" / "frontier.png").convert("RGB"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def test_several_runs_share_a_page_without_overwriting(make_run, tmp_path):
    runs = [make_run([make_record("prior")], name) for name in ("one", "two")]
    write_page([RunView(run) for run in runs], tmp_path / "out")
    assert (tmp_path / "out" / "run-1" / "scores.csv").is_file()
    assert (tmp_path / "out" / "run-2" / "scores.csv").is_file()


def test_missing_images_leave_the_tables(make_run, tmp_path):
    run_dir = make_run([make_record("prior")], images=False)
    write_page([RunView(run_dir)], tmp_path / "out")
    assert "| gan | prior |" in (tmp_path / "out" / "report.md").read_text()


def test_a_run_in_which_every_cell_failed_still_has_a_page(make_run, tmp_path):
    failed = make_record(
        "tr0n", status="failed", error={"type": "E", "message": "no such weights"}, scores=(), curve=(),
        timing=None,
    )  # fmt: skip
    write_page([RunView(make_run([failed]))], tmp_path / "out")
    page = (tmp_path / "out" / "report.md").read_text()
    assert "1 cell, 1 failed" in page
    assert "no such weights" in page


def test_nothing_to_report_is_an_error(tmp_path, make_run):
    with pytest.raises(ResultError, match="no run was given"):
        write_page([], tmp_path / "out")
    with pytest.raises(ResultError, match="holds no records yet"):
        write_page([RunView(make_run([]))], tmp_path / "out")


def test_costs_name_the_denoiser_where_there_is_one():
    plain = make_record("prior")
    assert plain.timing is not None
    counts = {**plain.timing.evaluations, "denoiser_forwards": 60, "denoiser_backwards": 4}
    guided = make_record("tr0n", timing=replace(plain.timing, evaluations=counts))
    (only,) = groups([plain])
    assert "denoiser" not in phase_table(only)
    (both,) = groups([plain, guided])
    text = phase_table(both)
    assert "| G evaluations | denoiser evaluations | f evaluations |" in text
    assert "| 2 + 2 back | 15 + 1 back | 2 + 2 back |" in text
    assert "| 2 + 2 back | 0 + 0 back | 2 + 2 back |" in text


def test_several_conditioners_have_a_table_each():
    records = [
        replace(record, cell=replace(record.cell, conditioner=name))
        for name in ("seen", "held out")
        for record in (make_record("prior"), make_record("tr0n"))
    ]
    seen, unseen = groups(records)
    assert (seen.title, unseen.slug) == ("shapes, text conditions: seen", "shapes-text-held-out")
    assert len(seen.records) == len(unseen.records) == 2
    (alone,) = groups(records[:2])
    assert alone.title == "shapes, text conditions"
