"""The default engine: tasks one after the other in this process, beside others that run the same suite."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence

from bench.engines.base import Outcome
from bench.errors import ArtifactError
from bench.workshop import Task, Workshop


def perform_one(task: Task, workshop: Workshop, *, wait: bool, worker: str) -> Outcome | None:
    """The outcome of one task, or None where another process is at it and ``wait`` is False.

    Raises ArtifactError for a fault of the store, which no other task would be spared.
    """
    begin = time.perf_counter()
    try:
        made = workshop.perform(task, wait=wait)
    except Exception as error:
        if type(error) is ArtifactError:
            raise
        return Outcome(task, seconds=time.perf_counter() - begin, worker=worker, error=error)
    return None if made is None else Outcome(task, made, time.perf_counter() - begin, worker)


class LocalEngine:
    """Skips what another process is at, and waits for it only when nothing else is left."""

    def perform(self, tasks: Sequence[Task], workshop: Workshop) -> Iterator[Outcome]:
        queue, passed_over = deque(tasks), 0
        worker = f"pid {os.getpid()}"
        while queue:
            task = queue.popleft()
            outcome = perform_one(task, workshop, wait=passed_over > len(queue), worker=worker)
            if outcome is None:
                queue.append(task)
                passed_over += 1
            else:
                passed_over = 0
                yield outcome

    def close(self) -> None:
        """Nothing is held."""
