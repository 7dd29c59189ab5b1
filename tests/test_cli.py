"""The command line: exit codes, messages, plain output, what each command passes on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import suite_examples
from suite_examples import TOY, write

from bench.cli import main
from bench.cli_output import quantity
from bench.components import TABLES
from bench.errors import BenchError
from bench.suite.schema import schema_text

ROOT = Path(__file__).parents[1]


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_version_and_help(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out.startswith("tr0n-bench ")
    assert call("--help") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("list", "plan", "run", "score", "report", "schema", "zoo"))


@pytest.mark.parametrize(
    "arguments", [("plann",), ("plan",), ("plan", "a", "b"), ("run", "x", "--fast"), ("zoo", "train")]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert call(*arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_plan_is_plain_lines_off_a_terminal(tmp_path, capsys):
    assert call("plan", write(tmp_path), "--store", tmp_path / "store") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# toy: 5 cells"
    columns = lines[1].split("\t")
    first = dict(zip(columns, lines[2].split("\t")))
    assert re.fullmatch(r"linear-near-prior-[0-9a-f]{8}", first["cell"])
    assert (first["variant"], first["samples"], first["conditions"]) == ("linear/near/prior", "12", "5 class")
    assert first["state"] == "to do"
    assert {"# artifacts shared by cells", "# artifacts of cells", "# work in all"} <= set(lines)
    assert "\x1b" not in "".join(lines)


def test_plan_as_json_with_overrides(tmp_path, capsys):
    assert call("plan", write(tmp_path), "--set", "samples.num=3", "--set", "seed=1", "--json") == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert {(cell["num_samples"], cell["seed"]) for cell in cells} == {(3, 1)}


def test_an_error_is_one_message_on_standard_error(tmp_path, capsys, monkeypatch):
    path = write(tmp_path, TOY.replace("seed: 24", "sead: 24"))
    assert call("plan", path) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {path}:3: sead: unknown key. Did you mean 'seed'?")
    assert "Traceback" not in captured.err
    monkeypatch.setenv("TR0N_BENCH_DEBUG", "1")
    with pytest.raises(BenchError):
        call("plan", path)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_missing_suite_is_an_error_not_a_traceback(command, tmp_path, capsys):
    assert call(command, tmp_path / "absent.yaml") == 1
    assert "absent.yaml: cannot read the suite" in capsys.readouterr().err


def test_list_shows_every_component_with_its_defaults(capsys):
    assert call("list", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert {table: [entry["kind"] for entry in entries] for table, entries in content.items()} == {
        table: list(entries) for table, entries in TABLES.items()
    }
    tr0n = next(entry for entry in content["samplers"] if entry["kind"] == "tr0n")
    assert tr0n["fields"]["steps"]["default"] == "100"
    assert tr0n["summary"] == "Translator start plus Langevin refinement."
    coco = next(entry for entry in content["data"] if entry["kind"] == "coco")
    assert coco["fields"]["root"]["default"] == "required"


def test_list_of_one_table(capsys):
    assert call("list", "samplers") == 0
    out = capsys.readouterr().out
    assert out.startswith("# samplers\nkind\twhat\tfields\nprior\t")
    assert call("list", "sampler") == 1
    assert "Did you mean 'samplers'?" in capsys.readouterr().err


def test_schema_to_standard_output_and_file(tmp_path, capsys):
    assert call("schema") == 0
    assert capsys.readouterr().out == schema_text()
    target = tmp_path / "new" / "suite.json"
    assert call("schema", "--out", target) == 0
    assert target.read_text(encoding="utf-8") == schema_text()
    assert call("schema", "--out", tmp_path / "new") == 1
    assert "cannot write" in capsys.readouterr().err


def test_zoo_lists_and_verifies_what_ships(capsys):
    assert call("zoo", "list") == 0
    listed = capsys.readouterr().out
    assert "digits-classifier-guide" in listed
    assert call("zoo", "verify") == 0
    verified = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert verified
    assert set(verified.values()) == {"ok"}


def test_zoo_verify_fails_on_a_damaged_file(tmp_path, monkeypatch, capsys):
    import shutil

    from bench.zoo import weights

    name = "digits-classifier-guide"
    for suffix in (".json", ".safetensors"):
        shutil.copy(weights.WEIGHTS_DIR / f"{name}{suffix}", tmp_path)
    content = bytearray((tmp_path / f"{name}.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / f"{name}.safetensors").write_bytes(content)
    monkeypatch.setattr(weights, "WEIGHTS_DIR", tmp_path)
    weights.card.cache_clear()
    assert call("zoo", "verify") == 1
    captured = capsys.readouterr()
    assert "sha256" in captured.out
    assert captured.err.startswith("error: some weight files")
    weights.card.cache_clear()


def test_zoo_train_refuses_an_unknown_recipe_and_device(tmp_path, capsys):
    assert call("zoo", "train", "shapes-gam", "--device", "cpu") == 1
    assert "Did you mean 'shapes-gan'?" in capsys.readouterr().err
    assert call("zoo", "train", "shapes-gan", "--device", "abacus") == 1
    assert "unknown device 'abacus'" in capsys.readouterr().err


def test_zoo_train_writes_weights_and_a_card(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # checkpoints go to the current folder's cache
    assert (
        call("zoo", "train", "digits-classifier-guide", "--device", "cpu", "--steps", 2, "--out", "made") == 0
    )
    path = Path(capsys.readouterr().out.strip())
    assert path.is_file()
    assert json.loads(path.with_suffix(".json").read_text())["recipe"]["steps"] == 2


RUN = TOY[: TOY.index("curve:")] + (
    """\
judges:
  pixels: {kind: python, target: "my_pkg.scoring:PixelJudge"}
metrics:
  level: {kind: python, target: "my_pkg.scoring:MeanLevel", args: {judge: pixels}}
variants:
  matrix: {data: targets, generator: stripes, conditioner: near, sampler: [prior, langevin]}
"""
)


def test_run_and_score_a_suite_of_outside_components(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TR0N_BENCH_CACHE", str(tmp_path / "cache"))
    assert call("run", write(tmp_path, RUN), "--device", "cpu", "--no-report") == 0
    assert "results/toy: 2 cells ok, 0 failed" in capsys.readouterr().out
    run_dir = tmp_path / "results" / "toy"
    records = {path: json.loads(path.read_text()) for path in run_dir.glob("cells/*/record.json")}
    assert [record["status"] for record in records.values()] == ["ok", "ok"]
    assert all(record["scores"][0]["metric"] == "mean-level" for record in records.values())
    assert call("score", run_dir, "--device", "cpu") == 0
    assert "2 cells ok, 0 failed" in capsys.readouterr().out
    for path, record in records.items():
        assert json.loads(path.read_text())["scores"] == record["scores"]


def test_report_prints_the_files_that_it_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TR0N_BENCH_CACHE", str(tmp_path / "cache"))
    assert call("run", write(tmp_path, RUN), "--device", "cpu") == 0
    assert (tmp_path / "results" / "toy" / "report").is_dir()
    capsys.readouterr()
    assert call("report", "results/toy", "--out", "page") == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written
    assert all(path.is_file() for path in written)
    assert call("report", "results/absent", "--out", "page") == 1
    assert "absent" in capsys.readouterr().err


def test_a_failed_cell_exits_with_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TR0N_BENCH_CACHE", str(tmp_path / "cache"))
    broken = "samplers.langevin={kind: langevin, steps: 3, step_size: 1e38, clip_norm: null}"
    arguments = (
        "--set",
        broken,
        "--set",
        "variants.matrix.generator=linear",
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
        "--no-report",
    )
    assert call("run", write(tmp_path, RUN), *arguments) == 1
    assert "1 cells ok, 1 failed" in capsys.readouterr().out
    records = [json.loads(path.read_text()) for path in (tmp_path / "run").glob("cells/*/record.json")]
    assert {record["cell"]["sampler"]: record["status"] for record in records} == {
        "prior": "ok",
        "langevin": "failed",
    }


def test_starting_up_imports_no_torch():
    code = "import sys, bench.cli; print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "[]"


def test_python_dash_m_and_its_exit_code(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(suite_examples.EXTERNAL)}
    command = [sys.executable, "-m", "bench", "list", "nothing"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: unknown table 'nothing'.")


def test_quantities():
    assert [quantity(value) for value in (7, 1500, 2_300_000, 4_000_000_000)] == [
        "7",
        "1.5 k",
        "2.3 M",
        "4.0 G",
    ]
