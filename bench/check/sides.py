"""Base and head: where their code is, and the process that runs each of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import bench
from bench.errors import BenchError

WORKER = Path(__file__).with_name("worker.py")
MOST_FORKS = 5  # of one process
HEAD = Path(bench.__file__).resolve().parents[1]
T = TypeVar("T")


class Side:
    """A process that runs one side's code. Use as a context manager."""

    def __init__(self, name: str, code: Path = HEAD):
        self.name, self.code = name, code
        self._process: subprocess.Popen[str] | None = None
        self._suite: dict[str, Any] = {}
        self._forks = False
        self._num_forked = 0
        self._child: int | None = None
        self._num_asked = 0

    def __enter__(self) -> Side:
        if not (self.code / "bench" / "__init__.py").is_file():
            raise BenchError(f"{self.name}: '{self.code}' holds no package 'bench'.")
        environment = {**os.environ, "PYTHONPATH": str(self.code), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._child = None
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write('{"do": "stop"}\n')
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def load(self, **suite: Any) -> dict[str, Any]:
        """Lets the process read a suite; returns its cells and the hardware."""
        loaded = self.ask("load", **suite)
        self._suite = suite
        # A fork must not have seen CUDA, and other systems' libraries do not bear one.
        self._forks = sys.platform == "linux" and bool(loaded["hardware"]["threads"])
        return loaded

    def renew(self) -> None:
        """Goes on in a new process, with the suite read and no network loaded: what a process happens to be
        given, memory above all, makes one in ten slower by 8 % for as long as it lives.

        Most are forks of one that has read the suite, which saves seconds; but they have something in common
        (1.5 % between the forks of two processes), so that every few a process is started afresh.
        """
        self.settle()
        if not self._forks or self._num_forked == MOST_FORKS:
            self.__exit__()
            self.__enter__()
            self.ask("load", **self._suite)
            self._num_forked = 0
        if self._forks:
            self._child = self.ask("fork")["pid"]
            self._num_forked += 1

    def settle(self) -> None:
        """Goes on in the process that read the suite."""
        if self._child is not None:
            self._child = None
            self.ask("leave")

    def pin(self, drawing: Collection[int], others: Collection[int]) -> None:
        """Lets the thread that draws run on some processors only, and the process's ``others`` on theirs,
        where the system can say so (Linux)."""
        if self._process is None:
            return
        main = self._child or self._process.pid
        with contextlib.suppress(OSError):
            for thread in map(int, os.listdir(f"/proc/{main}/task")):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, drawing if thread == main else others)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request. Raises BenchError for a fault of the side, or its death."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            self._num_asked += 1
            process.stdin.write(json.dumps({"do": do, "number": self._num_asked, **arguments}) + "\n")
            process.stdin.flush()
            answer = self._answer(process.stdout)
        except OSError:
            answer = None
        if answer is None:
            raise BenchError(f"{self.name}: the process ended at '{do}' (exit code {process.poll()}).")
        if answer["number"] is None:
            self._child = None  # its parent goes on, and may yet answer what the child was asked
        if "error" in answer:
            raise BenchError(f"{self.name} ({self.code}): {answer['error']}")
        return answer

    def _answer(self, lines: IO[str]) -> dict[str, Any] | None:
        """The answer to the last request, or the news that a child died; None where nothing comes any more.
        Answers to requests that a dead child left unread are passed over."""
        for line in iter(lines.readline, ""):
            answer: dict[str, Any] = json.loads(line)
            if answer["number"] in (None, self._num_asked):
                return answer
        return None


def at_once(*calls: Callable[[], T]) -> list[T]:
    """What the calls return, each on a side of its own, in their order: for what is slow and not timed."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call(), calls))


@contextlib.contextmanager
def sharing(sides: Sequence[Side]) -> Iterator[Callable[[int], None]]:
    """Gives a function that moves all sides to the same processor, another one for every number.

    While one side runs the other waits, so each would stay where it is: on a processor of its own, which
    others use more or less than the other side's. Two processes of equal code differed by 10 % that way, for
    as long as the others worked. The drawing thread's helpers go to the other processors: with one of them on
    its own, each waited for the other in a busy loop, and some runs took 6 s instead of 0.4.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield lambda number: None
        return
    allowed = sorted(os.sched_getaffinity(0))

    def place(number: int) -> None:
        drawing = {allowed[number % len(allowed)]}
        for side in sides:
            side.pin(drawing, set(allowed) - drawing or drawing)

    try:
        yield place
    finally:
        for side in sides:
            side.pin(allowed, allowed)


@contextlib.contextmanager
def checkout(reference: str, repository: Path = HEAD) -> Iterator[Path]:
    """The code of a git reference, in a worktree for the while. Raises BenchError where there is none."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True)

    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    if commit.returncode:
        raise BenchError(
            f"'{reference}' is no commit of '{repository}'. Name one that is fetched (a shallow clone in CI "
            "holds one commit only: fetch-depth: 0), or a checkout by its path."
        )
    with tempfile.TemporaryDirectory(prefix="tr0n-bench-base-") as folder:
        path = Path(folder) / "base"
        added = git("worktree", "add", "--detach", str(path), commit.stdout.strip())
        if added.returncode:
            raise BenchError(f"cannot check out '{reference}': {added.stderr.strip()}")
        try:
            yield path
        finally:
            git("worktree", "remove", "--force", str(path))
