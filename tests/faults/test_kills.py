"""SIGKILL at random moments: what is finished stays, nothing wrong is recorded, the end is the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

from faults.processes import Place, Server, quick_suite

KILLS = 50
MOST_RUNS = 250


def test_a_run_killed_at_any_moment_goes_on_where_it_stopped(tmp_path: Path):
    rng = random.Random(1)
    whole, place = Place(tmp_path / "whole", quick_suite()), Place(tmp_path / "killed", quick_suite())
    kills = resumed_kills = groups = partial = 0
    finished: dict[str, str] = {}
    with Server() as server:
        server.run(whole)  # the disk's caches
        shutil.rmtree(whole.store_dir)
        shutil.rmtree(whole.run_dir)
        begin = time.perf_counter()
        assert server.run(whole) == 0, whole.output()
        seconds = time.perf_counter() - begin
        right, total = whole.results(), len(whole.sound())
        assert [record["status"] for record in right.values()] == ["ok", "ok"]
        for _ in range(MOST_RUNS):
            if kills >= KILLS:
                break
            pid = server.start(place)
            # over all that is left to do, so that most kills meet a run that goes on
            time.sleep(rng.uniform(0, seconds * max(0.1, 1 - len(finished) / total)))
            os.kill(pid, signal.SIGKILL)
            code = server.wait(pid)
            assert code in (0, -signal.SIGKILL), place.output()
            now = place.sound()
            assert now.items() >= finished.items(), "a finished artifact was lost or changed"
            assert place.results().items() <= right.items(), "a wrong record"
            resumed_kills += code != 0 and bool(finished)
            partial += 0 < len(now) < total
            finished = now
            if code != 0:
                kills += 1
                continue
            groups += 1
            check_finished(place, whole)
            shutil.rmtree(place.store_dir)
            shutil.rmtree(place.run_dir)
            finished = {}
        assert server.run(place) == 0, place.output()
        assert place.sound().items() >= finished.items()
        check_finished(place, whole)
    print(f"{kills} kills ({resumed_kills} of a resumed run), {groups} runs finished, {seconds:.2f} s whole")
    assert kills >= KILLS
    assert resumed_kills >= KILLS // 4
    assert partial >= KILLS // 4


def check_finished(place: Place, whole: Place) -> None:
    """The same artifacts and records as those of a run that nobody stopped, and nothing else."""
    assert place.results() == whole.results()
    assert names(place) == names(whole)
    assert place.half_written() == []


def names(place: Place) -> set[str]:
    return {str(Path(path).relative_to(place.store_dir)) for path in place.sound()}
