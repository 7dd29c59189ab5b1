"""Two processes at once on one suite, one store and one run folder."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from faults.processes import Place, Server, custom, quick_suite, wait_until

from bench.store import RunStore


def check_shared(place: Place, whole: Place) -> None:
    """Each artifact was made once, and all came out as from one process."""
    labels = Counter(event["task"] for event in place.events("made"))
    assert set(labels.values()) == {1}, labels
    assert set(labels) == {event["task"] for event in whole.events("made")}
    assert place.results() == whole.results()
    assert place.half_written() == []
    assert {path.removeprefix(str(place.store_dir)) for path in place.sound()} == {
        path.removeprefix(str(whole.store_dir)) for path in whole.sound()
    }
    store = RunStore(place.run_dir)
    for record in store.records():
        assert len(store.read_images(record.cell.id)) == record.cell.num_samples
        assert len(store.read_samples(record.cell.id)) == record.cell.num_samples


@pytest.mark.parametrize("attempt", range(3))
def test_two_processes_share_the_work(attempt: int, server: Server, whole: Place, tmp_path: Path):
    place = Place(tmp_path, quick_suite())
    first = server.start(place, "--report")
    second = server.start(place, "--report")
    assert (server.wait(first), server.wait(second)) == (0, 0), place.output()
    check_shared(place, whole)
    finished = place.events("finished")
    assert [event["failed"] for event in finished] == [0, 0]
    assert len(place.events("attempt")) == 2
    assert (place.run_dir / "report" / "report.md").is_file()


def test_one_goes_on_where_the_other_is_killed(server: Server, tmp_path: Path):
    suite = quick_suite(generators=custom("Stalling", folder=str(tmp_path)))
    place, whole = Place(tmp_path / "two", suite), Place(tmp_path / "one", suite)
    assert server.run(whole) == 0
    (tmp_path / "stall").write_text("6")
    first = server.start(place)
    wait_until((tmp_path / "reached").exists)
    (tmp_path / "stall").unlink()
    second = server.start(place)  # takes what is free, then waits for what the first is at
    journal = place.run_dir / "journal.jsonl"
    wait_until(lambda: journal.read_text().count('"event": "attempt"') == 2)
    os.kill(first, signal.SIGKILL)
    assert server.wait(second) == 0, place.output()
    assert server.wait(first) == -signal.SIGKILL
    check_shared(place, whole)
