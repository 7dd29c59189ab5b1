"""The engine contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.workshop import Task, Workshop


@dataclass(frozen=True)
class Outcome:
    """How a task ended: ``made`` is False where the artifact was there already; ``error`` is what stopped it.

    ``worker`` names the process that did it, ``lost`` those that died at it before.
    """

    task: Task
    made: bool = False
    seconds: float = 0.0
    worker: str = ""
    error: Exception | None = None
    lost: tuple[str, ...] = ()


class Engine(Protocol):
    def perform(self, tasks: Sequence[Task], workshop: Workshop) -> Iterator[Outcome]:
        """Does all tasks, in any order, and yields an outcome for each as it ends.

        A failed task is an outcome with an error; a fault of the artifact store is raised.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds."""
        ...
