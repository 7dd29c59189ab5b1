"""Phases add up, warm-up is forgotten, the device is waited for; provenance tells where a number is from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from bench import timing
from bench.provenance import environment, git_state
from bench.timing import PhaseTimer, peak_memory_gib

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when told to."""
    now = {"t": 0.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now["t"])

    def pass_by(seconds: float) -> None:
        now["t"] += seconds

    return pass_by


def test_phases_and_batches_add_up_and_other_work_is_not_counted(clock):
    timer = PhaseTimer(CPU)
    for num in (4, 2):
        with timer.batch(num):
            with timer.phase("refine"):
                clock(2)
            clock(100)  # writing files, say
            with timer.phase("decode"):
                clock(1)
    with timer.phase("score"):
        clock(5)
    result = timer.timing(num_samples=6, batch_size=4, evaluations={"generator_forwards": 6})
    assert result.phase_s == {"refine": 4, "decode": 2, "score": 5}
    assert result.batch_s == (3, 3)
    assert result.batch_n == (4, 2)


def test_a_warm_up_is_forgotten(clock):
    timer = PhaseTimer(CPU)
    with timer.batch(1), timer.phase("refine"):
        clock(9)
    timer.start()
    assert timer.seconds("refine") == 0
    assert timer.timing(num_samples=0, batch_size=1, evaluations={}).batch_s == ()


def test_the_device_is_synchronised_at_both_ends(monkeypatch):
    waits = []
    monkeypatch.setattr(timing, "synchronise", waits.append)
    with PhaseTimer(CPU).phase("refine"):
        assert len(waits) == 1
    assert len(waits) == 2


def test_a_failing_phase_is_still_timed(clock):
    timer = PhaseTimer(CPU)

    def fail() -> None:
        with timer.phase("refine"):
            clock(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert timer.seconds("refine") == 3


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_gib(CPU)
    held = torch.ones(int(0.2 * 2**30 / 4) + int(before * 2**30 / 4))
    assert peak_memory_gib(CPU) > before + 0.1
    assert held[0] == 1


def test_the_environment_names_versions_hardware_and_no_paths():
    content = environment()
    assert content["packages"]["torch"] == torch.__version__
    assert content["packages"]["tr0n-bench"]
    assert content["memory_gib"] > 0
    assert content["cpu"]
    assert str(Path.home()) not in str(content)


def test_a_git_checkout_has_a_revision_and_a_dirty_flag(tmp_path):
    assert git_state(tmp_path) == {"revision": None, "dirty": None}

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "One")
    assert git_state(tmp_path) == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path)["dirty"] is True
