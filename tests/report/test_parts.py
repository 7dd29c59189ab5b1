"""The parts of the report: breakdowns, what is distinguishable, nearest rows, LaTeX, frames, formats."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from report.synthetic import synthetic_run
from scipy import stats

import bench
from bench.artifacts import open_store
from bench.errors import BenchError, ResultError
from bench.report import FORMATS, read_formats, write_report
from bench.report.breakdown import cuts, wilson_interval
from bench.report.evidence import RunEvidence, nearest_rows
from bench.report.grids import _font, shown_text
from bench.report.html import charts
from bench.report.html.charts import undominated
from bench.report.html.page import script_json
from bench.report.html.sprites import Sprites, thumbnail
from bench.report.latex import latex_escape, latex_table, latex_value
from bench.report.tables import groups
from bench.report.trust import WITH_BIAS, WITHOUT_BIAS, interval_notes
from bench.statistics.leave_out import BIAS_STAYS
from bench.store import RunStore
from bench.types import Score


def table(values, labels=None, **columns) -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame(
        {
            "condition_id": [f"c{i}" for i in range(n)], "seed": range(n), "failed_step": -1,
            "labels": labels or ['{"color":"red"}'] * n, "accuracy": values, **columns,
        }
    )  # fmt: skip


# --- breakdowns


def test_a_breakdown_is_the_mean_of_the_samples_that_demand_the_value_without_failed_ones():
    labels = ['{"color":"red"}', '{"color":"blue"}', '{"color":"red"}', '{"color":"blue"}', "not json"]
    frame = table([True, False, True, True, True], labels, failed_step=[-1, -1, -1, 3, -1])
    (cut,) = cuts({"v": frame})
    assert cut.values == ("blue", "red")
    assert cut.rows["v"]["red"][0] == 1.0
    assert cut.rows["v"]["red"][3] == 2
    assert cut.rows["v"]["blue"][0] == 0.0
    assert cut.rows["v"]["blue"][3] == 1


def test_wilson_agrees_with_scipy():
    values = np.array([1] * 7 + [0] * 13, float)
    truth = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert wilson_interval(values) == pytest.approx((truth.low, truth.high), abs=1e-12)


def test_the_frontier_holds_what_nothing_beats():
    points = [(1.0, 5.0), (2.0, 3.0), (2.0, 9.0), (3.0, 4.0), (4.0, 1.0)]
    assert undominated(points, lower=True) == [(1.0, 5.0), (2.0, 3.0), (4.0, 1.0)]
    assert undominated(points, lower=False) == [(1.0, 5.0), (2.0, 9.0)]


# --- evidence


def test_nearest_rows_agree_with_every_distance():
    rng = np.random.default_rng(0)
    queries, points = (
        rng.normal(size=(700, 9)).astype(np.float32),
        rng.normal(size=(50, 9)).astype(np.float32),
    )
    queries[3] = np.nan
    index, distance = nearest_rows(queries, points)
    every = np.linalg.norm(queries[:, None].astype(float) - points[None], axis=2)
    good = np.arange(700) != 3
    assert (index[good] == every[good].argmin(1)).all()
    assert np.allclose(distance[good], every[good].min(1), rtol=1e-12)
    assert index[3] == -1
    assert np.isnan(distance[3])


def test_trajectories_end_in_the_samples_and_neighbours_are_real(finished_run):
    store = RunStore(finished_run.out)
    evidence = RunEvidence(store, finished_run.url)
    record = next(r for r in store.records() if r.cell.sampler == "tr0n")
    steps, images = evidence.trajectories(record, 8)
    assert steps == [0, 3]
    images = list(images)
    assert len(images) == 16
    assert np.array_equal(np.stack(images[1::2]), store.read_images(record.cell.id, range(8)))
    found = evidence.nearest(record)
    assert found.num_reference == 200
    assert ((found.index >= 0) & (found.index < 200)).all()
    pictures, ids = evidence.real_images("digits", found.index[:3].tolist())
    assert pictures.shape == (3, 3, 32, 32)
    assert len(ids) == 3
    assert evidence.notes == []


def test_what_the_store_lost_is_left_out_and_said(finished_run, tmp_path):
    run, url = finished_run.copy(tmp_path)
    for kind in ("snapshots", "reference"):
        shutil.rmtree(Path(url) / kind)
    evidence = RunEvidence(RunStore(run), url)
    record = next(r for r in RunStore(run).records() if r.cell.sampler == "tr0n")
    assert evidence.trajectories(record, 4) is None
    assert evidence.nearest(record) is None
    assert len(evidence.notes) == 2
    away = RunEvidence(RunStore(run), str(tmp_path / "nowhere"))
    assert away.nearest(record) is None
    assert "there is no artifact store" in away.notes[0]


def test_looking_leaves_the_store_as_it_is(finished_run, tmp_path):
    run, url = finished_run.copy(tmp_path)
    broken = next((Path(url) / "snapshots").rglob("0000*"))
    broken = broken if broken.is_file() else next(p for p in broken.rglob("*") if p.is_file())
    broken.write_bytes(broken.read_bytes()[:-7])
    before = sorted(str(path) for path in Path(url).rglob("*"))
    evidence = RunEvidence(RunStore(run), url)
    for record in RunStore(run).records():
        evidence.trajectories(record, 4)
    assert any("no trajectory" in note for note in evidence.notes)
    assert sorted(str(path) for path in Path(url).rglob("*")) == before


def test_the_page_of_a_real_run_has_strips_and_neighbours(finished_run, tmp_path):
    pages = write_report([finished_run.out], tmp_path, ["html"], store_url=finished_run.url)
    assert [page.name for page in pages] == ["report.html"]
    text = pages[0].read_text()
    assert '"trajectory":{"steps":[0,3]' in text
    assert '"nearest":{"at":[' in text
    assert open_store(finished_run.url).keys("snapshots")


# --- sprites and data


def test_large_images_become_small_ones_and_small_ones_stay():
    small = np.random.default_rng(0).integers(0, 256, (3, 32, 40), np.uint8)
    assert np.array_equal(thumbnail(small), small.transpose(1, 2, 0))
    assert thumbnail(np.zeros((3, 256, 512), np.uint8)).shape == (64, 128, 3)


def test_sprites_count_their_tiles():
    sprites = Sprites(10**6)
    where = sprites.add((np.zeros((3, 8, 8), np.uint8) for _ in range(11)), columns=2, rows=2)
    assert where == {"first": 0, "per": 4, "columns": 2, "width": 8, "height": 8, "num": 11}
    assert len(sprites.contents) == 3
    assert sprites.add([], 2, 2) is None


def test_data_cannot_leave_its_element():
    text = script_json({"a": "</script><!-- & \u2028", "b": float("nan")})
    assert not set("<>&\u2028") & set(text)


# --- LaTeX


def test_latex_prints_untrusted_text_and_runs_no_command():
    text = latex_escape("a_b & 50% $x$ \\input{/etc/passwd} {~^#} é 😀\nnew")
    assert "\\input{/" not in text
    assert "U+1F600" in text
    assert "\n" not in text
    assert "e" in text


def test_readers_are_told_what_an_interval_of_a_distance_speaks_of():
    plain = Score(metric="a", title="A", value=0.9, n=9, interval=(0.8, 1.0))
    freed = Score(metric="fid", title="FID", value=3.9, n=9, interval=(0.0, 0.5), details={"bias": 4.0})
    assert interval_notes([plain]) == []
    assert interval_notes([plain, freed]) == [WITHOUT_BIAS]
    stays = replace(
        freed, details={"bias": None}, interval_method=f"jackknife; {BIAS_STAYS}, which takes more"
    )
    assert interval_notes([stays]) == [WITH_BIAS]


def test_no_bar_is_drawn_where_an_interval_lies_beside_its_value():
    inside = Score(metric="fid", title="FID", value=4.0, n=9, interval=(3.0, 6.0))
    beside = replace(inside, interval=(0.0, 0.5))
    bars = charts._error_bars([inside, beside])
    assert bars is not None
    assert (bars["array"], bars["arrayminus"]) == ([2.0, 0.0], [1.0, 0.0])


def test_latex_values_have_their_interval():
    score = Score(metric="fid", title="FID", value=3.91, n=9, better="lower", interval=(3.71, 4.11))
    assert latex_value(score) == r"3.91 {\scriptsize $\pm$0.20}"
    assert latex_value(replace(score, interval=(3.71, 4.31)), bold=True).startswith(r"\textbf{3.91}")
    assert "^{+0.40}_{-0.20}" in latex_value(replace(score, interval=(3.71, 4.31)))
    assert latex_value(replace(score, interval=(0.0, 0.494))) == r"3.91 {\scriptsize $[0.00, 0.49]$}"
    assert latex_value(replace(score, interval=None)) == "3.91"


def test_latex_tables_have_booktabs_rules_and_one_width(tmp_path):
    run = RunStore(synthetic_run(tmp_path / "run", samplers=("a_b", "c & d"), generators=("g1", "g2")))
    (group,) = groups(run.records())
    text = latex_table(group)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert text.count(r"\midrule") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert r"\textbf{15.00}" in text


@pytest.mark.skipif(
    shutil.which("pdflatex") is None and shutil.which("tectonic") is None,
    reason="neither pdflatex nor tectonic is installed",
)
def test_latex_compiles(tmp_path):
    run = synthetic_run(tmp_path / "run", samplers=("a_b^{x}", 'c & "d" \\e 😀'), suite_name="s_%")
    write_report([run], tmp_path / "out", ["latex"])
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    if shutil.which("pdflatex") is None:
        command = ["tectonic", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "out" / "report.pdf").stat().st_size > 5000


# --- formats and frames


def test_formats_write_what_they_name_and_nothing_else(tmp_path):
    run = synthetic_run(tmp_path / "run")
    endings = {"html": {".html"}, "md": {".md"}, "latex": {".tex"}, "csv": {".csv"}, "png": {".png"},
               "svg": {".svg"}}  # fmt: skip
    for name, expected in endings.items():
        files = write_report([run], tmp_path / name, [name], store_url=str(tmp_path / "none"))
        assert {path.suffix for path in files} == expected
        assert {path.suffix for path in (tmp_path / name).iterdir()} == expected
    for link in re.findall(r"\]\(([^)]+)\)", (tmp_path / "md" / "report.md").read_text()):
        raise AssertionError(f"a page alone links to {link}")


def test_formats_are_read_with_a_hint():
    assert read_formats("html, latex,html") == ("html", "latex")
    assert set(read_formats(",".join(FORMATS))) == set(FORMATS)
    with pytest.raises(BenchError, match="Did you mean 'latex'"):
        read_formats("latx")
    with pytest.raises(BenchError, match="names none"):
        read_formats(" , ")


def test_load_gives_frames_that_show_themselves(tmp_path):
    evil = "<b>x</b>"
    run = bench.load(synthetic_run(tmp_path / "run", samplers=("prior", evil), num=12))
    assert set(run.scores["metric"]) >= {"fid", "class-accuracy"}
    assert len(run.samples) == 24
    assert run.samples.groupby("sampler")["clip-cosine"].mean()[evil] == pytest.approx(
        run.scores.query("metric == 'clip-cosine' and sampler == @evil")["value"].item(), abs=1e-6
    )
    assert run.timings.set_index(["cell", "phase"]).loc[("cell-0", "refine"), "seconds_per_image"] == 0.01
    shown = run.table()
    assert shown.frame["FID ↓"].tolist() == [30.0, 15.0]
    assert evil not in shown._repr_html_()
    assert "<b>15.00 (13.50 to 16.50)</b>" in shown._repr_html_()
    assert "data:image/png;base64," in run.grid()._repr_html_()
    assert "FID" in run._repr_html_()
    assert run.image("cell-0", 3).size == (32, 32)
    with pytest.raises(ResultError, match=r"Did you mean 'shapes/text/guide'\?"):
        run.table("shape", "text")
    with pytest.raises(ResultError, match="is missing"):
        bench.load(tmp_path / "absent")


def test_published_numbers_stand_beside_the_measured_ones(finished_run, tmp_path):
    run, url = finished_run.copy(tmp_path)
    store = RunStore(run)
    content = store.read_run()
    content["suite"]["variants"]["include"][0]["reproduces"] = [
        {"system": "TR0N", "metric": "FID", "tolerance": 0.5}
    ]
    store.write_run(content)
    (page,) = write_report([run], tmp_path / "out", ["html"], store_url=url)
    text = page.read_text()
    assert "Published against measured" in text
    assert "not comparable" in text or "not reproduced" in text


@pytest.mark.parametrize(
    "text", ["", "a\r\nb\tc", "\u2028\u2029\x85", "\ud800", "\x00\x1b[31m", "日本 \U0001f600", "$\\frac{1$"]
)
def test_a_grid_draws_whatever_text_a_run_holds(text):
    drawing = ImageDraw.Draw(Image.new("RGB", (200, 100), "white"))
    for anchor in ("mm", "rm"):
        drawing.text((100, 50), shown_text(text), "black", _font(7.5), anchor)
