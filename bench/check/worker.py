"""One side of a check, in a process of its own: loads a suite's cells and draws when it is told to.

Run as a file, not as a module, so that ``bench`` is whatever PYTHONPATH says: the base's code or the head's.
Reads a JSON object per line from standard input and answers with one; everything else that is printed goes
to standard error. A fault is an answer ``{"error": …}``. On "fork" a child, with all that is loaded and no
network yet, goes on with the requests until "leave": a new process at a tenth of what starting one takes.
Answers bear their request's number; that a child has died is told without one.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


class Worker:
    """What a side has loaded. ``cells`` are a plan's, ``ready`` maps a cell to a function that draws."""

    def __init__(self) -> None:
        self.ready: dict[str, Any] = {}

    def load(self, suite: str, overrides: list[str], device: str, store: str) -> dict[str, Any]:
        """Reads the suite; returns its cells."""
        import torch

        from bench.artifacts import open_store
        from bench.assembly import Assembly
        from bench.plan import plan
        from bench.provenance import hardware
        from bench.runner import choose_device
        from bench.suite import load_suite
        from bench.workshop import Workshop

        chosen = choose_device(device)
        self.suite, self.device, self.url = load_suite(suite, overrides), chosen, store
        self.plan = plan(self.suite)
        self.workshop = Workshop(Assembly(self.suite, chosen), self.plan, open_store(store))
        import bench

        return {
            "cells": [
                {
                    "id": cell.id,
                    "variant": cell.variant,
                    "data": cell.data,
                    "kind": cell.condition_kind,
                    "steps": self.suite.samplers[cell.sampler].config.steps,
                }
                for cell in self.plan.cells
            ],
            "hardware": hardware(chosen),
            "torch": torch.__version__,
            "code": str(Path(bench.__file__).parent),
        }

    def prepare(self, cell: str, unit_s: float, max_steps: int | None = None) -> dict[str, Any]:
        """Trains what is missing, warms up, and finds how many steps fit in ``unit_s``."""
        from bench.samplers.draw import draw_tiled
        from bench.timing import synchronise

        own = self.workshop.needs(cell)
        if own.translator is not None:
            for part in own.translator_parts():
                if not self.workshop.store.exists(*part.place):
                    for task in self.workshop.tasks(cell, [*own.pair_parts(), *own.parts()]):
                        if task.stage in ("pairs", "translator"):
                            self.workshop.perform(task)
                    break
        translator = self.workshop.translator(own)
        sampler = self.suite.samplers[own.cell.sampler].config
        tile = self.suite.samples.tile
        index = range(min(tile, own.cell.num_samples))
        problem = self.workshop.problem(own.assignment, own.cell, index, translator, tile)

        def draw(steps: int) -> tuple[float, float]:
            synchronise(self.device)
            wall, cpu = time.perf_counter(), time.process_time()
            draw_tiled(sampler, problem, tile=tile, index=index, max_steps=steps)
            synchronise(self.device)
            return time.perf_counter() - wall, time.process_time() - cpu

        if max_steps is None:
            draw(min(2, sampler.steps))
            max_steps = sampler.steps
            if sampler.steps > 2:
                short, longer = (min(draw(steps)[0] for _ in range(2)) for steps in (1, 3))
                step_s = max((longer - short) / 2, 1e-6)
                max_steps = int(min(sampler.steps, max(1, 1 + (unit_s - short) / step_s)))
        draw(max_steps)
        self.ready[cell] = lambda: draw(max_steps)
        return {"max_steps": max_steps, "steps": sampler.steps, "samples": len(index)}

    def time(self, cell: str) -> dict[str, Any]:
        """Draws once; wall-clock and processor seconds."""
        wall, cpu = self.ready[cell]()
        return {"wall": wall, "cpu": cpu}

    def run(self, out: str) -> dict[str, Any]:
        """Draws, scores and records the whole suite into a run folder."""
        from bench.runner import run

        summary = run(self.suite, Path(out), str(self.device), store_url=self.url)
        return {"ok": summary.num_ok, "failed": summary.num_failed}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    worker = Worker()

    def say(answer: dict[str, Any], number: int | None = None) -> None:
        answers.write(json.dumps({"number": number, **answer}) + "\n")
        answers.flush()

    # One request at a time: none is read ahead that another process of this one's should get.
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        name, number = request.pop("do"), request.pop("number", None)
        if name == "stop":
            return
        if name == "fork":
            child = os.fork()
            if child == 0:
                say({"pid": os.getpid()}, number)
            elif os.waitpid(child, 0)[1] != 0:
                say({"error": "the process that drew has died"})
            continue
        if name == "leave":
            say({}, number)
            os._exit(0)
        try:
            if name not in ("load", "prepare", "time", "run"):
                raise ValueError(f"unknown request {name!r}")
            answer = getattr(worker, name)(**request)
        except Exception as error:
            tail = "".join(traceback.format_exception(error)[-4:])
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": tail}
        say(answer, number)


if __name__ == "__main__":
    main()
