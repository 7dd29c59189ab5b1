"""What runs on the workers of a cluster: a workshop made from plain data, and how its tasks ended.

Nothing here knows Ray: a blueprint goes in, reports come out.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.engines.base import Outcome
from bench.engines.local import perform_one
from bench.errors import ArtifactError, BenchError
from bench.plan import plan
from bench.suite import suite_from_plain
from bench.workshop import Task, Workshop


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """All that a workshop is made from elsewhere. ``hello`` is the place of an artifact in the store that
    whoever shares the store can read; ``folder`` and ``sys_path`` are the driver's, used where they exist."""

    suite: dict[str, Any]
    source: str
    store: str
    hello: tuple[str, str, str]
    device: str
    threads: int
    cache_dir: str
    folder: str
    sys_path: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """How a task, or making the workshop (``made`` is None then), ended on ``worker``.

    ``counts`` is what it added to the workshop's counts; ``error`` is a pickled exception.
    """

    worker: str
    made: bool | None = None
    seconds: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    error: bytes | None = None

    def raised(self) -> Exception | None:
        """The exception as it was raised, or its type and message where its class is unknown here."""
        if self.error is None:
            return None
        whole, text, is_ours = pickle.loads(self.error)
        try:
            return pickle.loads(whole)
        except Exception:
            return BenchError(text) if is_ours else RuntimeError(text)


class Worker:
    """Makes its workshop once and then does tasks, one at a time."""

    def __init__(self, blueprint: Blueprint):
        self.blueprint = blueprint
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def set_up(self) -> Report:
        """Makes the workshop; the report's error says why it cannot be made here."""
        try:
            self.workshop = build(self.blueprint, self.name)
        except Exception as error:
            return Report(self.name, error=packed(error))
        return Report(self.name)

    def perform(self, task: Task, wait: bool) -> Report:
        """Does one task; ``made`` is None where another process is at it and ``wait`` is False."""
        before = Counter(self.workshop.made)
        try:
            self._check_key(task)
            outcome = perform_one(task, self.workshop, wait=wait, worker=self.name)
        except Exception as error:
            outcome = Outcome(task, error=error)
        counts = {name: n - before[name] for name, n in self.workshop.made.items() if n != before[name]}
        if outcome is None:
            return Report(self.name, counts=counts)
        raised = None if outcome.error is None else packed(outcome.error)
        return Report(self.name, outcome.made, outcome.seconds, counts, raised)

    def _check_key(self, task: Task) -> None:
        """Raises BenchError where this worker would make something else under the task's key."""
        if not any(part.key == task.part.key for part in self.workshop.needs(task.cell).parts()):
            raise BenchError(
                f"worker {self.name} finds other keys for cell '{task.cell}' than the run: its tr0n-bench, "
                "weights or data are not the same. Give all nodes the same package and files."
            )


def build(blueprint: Blueprint, name: str) -> Workshop:
    """The workshop of a blueprint. Raises BenchError where it cannot be made in this process."""
    from bench.runner import choose_device

    if os.path.isdir(blueprint.folder):
        os.chdir(blueprint.folder)  # a suite's relative paths are the driver's
    sys.path += [entry for entry in blueprint.sys_path if entry not in sys.path]
    torch.set_num_threads(blueprint.threads)
    store = open_store(blueprint.store)
    if not store.exists(*blueprint.hello):
        raise ArtifactError(
            f"worker {name} does not see what the run wrote to the artifact store '{blueprint.store}'. "
            "Give --store a folder that all nodes share, or s3:// or gs://."
        )
    suite = suite_from_plain(blueprint.suite, blueprint.source)
    assembly = Assembly(suite, choose_device(blueprint.device), Path(blueprint.cache_dir))
    return Workshop(assembly, plan(suite), store)


def packed(error: Exception) -> bytes:
    """An exception to be sent: whole where it can be pickled, with its traceback as a note where it is not
    the user's to mend; else its type and message."""
    is_ours = isinstance(error, BenchError)
    text = str(error) if is_ours else f"{type(error).__name__}: {error}"
    if not is_ours:
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        whole = pickle.dumps(error)
        again = pickle.loads(whole)
        if type(again) is not type(error) or str(again) != str(error):
            whole = b""
    except Exception:
        whole = b""
    return pickle.dumps((whole, text, is_ours))
