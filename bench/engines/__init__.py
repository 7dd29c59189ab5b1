"""Who does the tasks of a stage: this process, or workers of a Ray cluster. Same tasks, same artifacts."""

from __future__ import annotations

from bench.engines.base import Engine, Outcome
from bench.errors import BenchError, nearest

__all__ = ["ENGINES", "Engine", "Outcome", "make_engine"]

ENGINES = ("local", "ray")


def make_engine(name: str, address: str | None = None, workers: int | None = None) -> Engine:
    """The engine called ``name``; ``address`` and ``workers`` are the Ray cluster's and may be left out.

    Raises BenchError for an unknown name or a missing extra package.
    """
    if name == "local":
        from bench.engines.local import LocalEngine

        if address is not None or workers is not None:
            raise BenchError("--address and --workers go with --engine ray.")
        return LocalEngine()
    if name == "ray":
        from bench.engines.ray import RayEngine

        return RayEngine(address, workers)
    raise BenchError(f"unknown engine '{name}'.{nearest(name, ENGINES)} Engines: {', '.join(ENGINES)}.")
