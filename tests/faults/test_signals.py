"""SIGTERM and Ctrl-C: what was finished is kept, the exit code says so, the same command goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from faults.processes import Place, Server, custom, quick_suite, wait_until


def stalled(tmp_path: Path, calls: int) -> Place:
    place = Place(tmp_path, quick_suite(generators=custom("Stalling", folder=str(tmp_path))))
    (tmp_path / "stall").write_text(str(calls))
    return place


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("calls", [0, 9])
def test_a_signal_ends_the_run_and_loses_nothing(number: int, calls: int, server: Server, tmp_path: Path):
    place = stalled(tmp_path, calls)
    pid = server.start(place)
    wait_until((tmp_path / "reached").exists)
    before = place.sound()
    os.kill(pid, number)
    assert server.wait(pid) == 128 + number
    assert place.output() == "stopped: what was finished is kept; the same command goes on from there.\n"
    assert place.half_written() == []
    assert place.sound() == before
    assert [event["reason"] for event in place.events("interrupted")] == [
        f"Stopped: {signal.Signals(number).name}"
    ]
    assert bool(before) == (calls > 0)
    assert place.results() == {}, "no cell fails for being stopped"
    (tmp_path / "stall").unlink()
    assert server.run(place) == 0, place.output()
    assert place.sound().items() >= before.items()
    undisturbed = Place(tmp_path / "undisturbed", place.suite)
    assert server.run(undisturbed) == 0
    assert place.results() == undisturbed.results()


def test_whoever_asks_twice_need_not_wait(server: Server, tmp_path: Path):
    place = stalled(tmp_path, 6)
    (tmp_path / "deaf").touch()
    pid = server.start(place)
    wait_until((tmp_path / "reached").exists)
    os.kill(pid, signal.SIGINT)
    wait_until((tmp_path / "told").exists)
    os.kill(pid, signal.SIGINT)
    assert server.wait(pid) == -signal.SIGINT
    assert "Traceback" not in place.output()
    for name in ("stall", "deaf"):
        (tmp_path / name).unlink()
    assert server.run(place) == 0, place.output()
    assert place.half_written() == []
