"""Real processes that run a suite, and what tests ask of the folders that they leave."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from support import SMALL_SUITE

from bench.artifacts import open_store
from bench.store import RunStore, comparable

TESTS = Path(__file__).parents[1]
PATIENCE_S = 280.0


class Server:
    """The forking parent of ``server.py``, as a context manager."""

    def __enter__(self) -> Server:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (TESTS, TESTS.parent))),
        }
        environment.pop("TR0N_BENCH_DEBUG", None)
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self._line() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(PATIENCE_S)

    def _line(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline().strip()

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._parent.stdin is not None
        print(json.dumps(request), file=self._parent.stdin, flush=True)
        return json.loads(self._line())

    def start(self, place: Place, *options: str, environment: dict[str, str] | None = None) -> int:
        """Forks a process that runs the suite of ``place``; its process id."""
        place.log.unlink(missing_ok=True)
        return self._ask(
            {
                "start": place.command(*options),
                "limits": place.limits,
                "log": str(place.log),
                "environment": environment or {},
            }
        )

    def wait(self, pid: int) -> int:
        """The exit code of a process; -n where signal n killed it."""
        return os.waitstatus_to_exitcode(self._ask({"wait": pid}))

    def run(self, place: Place, *options: str, environment: dict[str, str] | None = None) -> int:
        return self.wait(self.start(place, *options, environment=environment))


@dataclass
class Place:
    """A suite, its artifact store and its run folder, below one folder. ``limits`` are a process's."""

    root: Path
    suite: dict[str, Any]
    limits: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.store_dir, self.run_dir, self.log = self.root / "store", self.root / "run", self.root / "log"
        self.write_suite()

    def write_suite(self) -> None:
        (self.root / "suite.yaml").write_text(yaml.safe_dump(self.suite, sort_keys=False))

    def command(self, *options: str) -> list[str]:
        return [
            "run", str(self.root / "suite.yaml"), "--out", str(self.run_dir), "--store", str(self.store_dir),
            "--device", "cpu", "--no-report", *options,
        ]  # fmt: skip

    def output(self) -> str:
        """All that the last process printed."""
        return self.log.read_text()

    def results(self) -> dict[str, Any]:
        """Every record on disk that can be compared, by cell; all must parse."""
        store = RunStore(self.run_dir)
        found = sorted(self.run_dir.glob("cells/*/record.json"))
        return {path.parent.name: comparable(store.read_record(path.parent.name)) for path in found}

    def sound(self) -> dict[str, str]:
        """Path of every artifact → hash of its bytes. No artifact may be unsound."""
        findings = list(open_store(str(self.store_dir)).verify())
        assert [finding for finding in findings if not finding.ok] == []
        return {finding.path: digest(Path(finding.path)) for finding in findings}

    def events(self, name: str) -> list[dict[str, Any]]:
        """The journal's events of one name; every line must parse."""
        path = self.run_dir / "journal.jsonl"
        entries = map(json.loads, path.read_text().splitlines() if path.exists() else [])
        return [entry for entry in entries if entry["event"] == name]

    def half_written(self) -> list[str]:
        """Temporary files anywhere."""
        return sorted(str(path) for path in self.root.rglob("*.tmp"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def quick_suite(**changes: Any) -> dict[str, Any]:
    """The small suite, smaller still: eight samples in two artifacts; ``changes`` are merged in."""
    suite = copy.deepcopy(SMALL_SUITE)
    suite["translators"]["default"] |= {"num_pairs": 64, "steps": 8}
    suite["samplers"]["langevin"]["steps"] = suite["samplers"]["tr0n"]["steps"] = 2
    suite["protocol"]["num_reference"] = 40
    suite["samples"] |= {"num": 8, "shard": 4}
    suite["curve"] = {"steps": [0, 2], "num": 8}
    suite["judges"]["digits"]["batch_size"] = 8
    suite["variants"]["matrix"]["sampler"] = ["langevin", "tr0n"]
    for section, change in changes.items():
        suite[section] = {**suite[section], **change} if isinstance(change, dict) else change
    return suite


def custom(name: str, **arguments: Any) -> dict[str, Any]:
    """A generator of ``faults.components`` as the section of a suite."""
    return {"vae": {"kind": "python", "target": f"faults.components:{name}", "args": arguments}}


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "the process never got there"
        time.sleep(0.005)
