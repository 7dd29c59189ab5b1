"""Tasks spread over the workers of a Ray cluster, or of this machine alone: the extra ``ray``.

Workers are Ray actors. Each makes a workshop of its own and shares the artifact store with all others, so a
task can be done by any of them, and done again by another when one dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

from bench.engines.base import Outcome
from bench.engines.worker import Blueprint, Report, Worker
from bench.errors import ArtifactError, BenchError
from bench.workshop import Task, Workshop

MOST_LOSSES = 4  # workers that may die at one task
MOST_FAILED_STARTS = 4  # workers that may fail before their first task, in one run
LOOK_AGAIN_S = 10.0  # how often nodes that joined are looked for
REACH_S = 5.0
OBJECT_STORE_BYTES = 128 * 2**20  # artifacts do not pass through it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How many workers a cluster has room for, what each takes, and the device it works on."""

    workers: int
    device: str
    num_cpus: int
    num_gpus: int


def layout(resources: Mapping[str, float], asked: str, threads: int) -> Layout:
    """One worker per GPU where there are any and ``asked`` is not the CPU, else one per ``threads`` CPUs.

    Raises BenchError for a cluster without what is asked for.
    """
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if asked.startswith("cuda") and not gpus:
        raise BenchError(
            f"device '{asked}' was asked for, and the Ray cluster has no GPU. Use --device auto."
        )
    if gpus and asked != "cpu":
        return Layout(gpus, "auto" if asked == "auto" else "cuda", 0, 1)
    if cpus < threads:
        raise BenchError(
            f"the Ray cluster has {cpus} CPUs and no GPU to use, a worker takes {threads}. Add a node to it: "
            "ray start --address=HEAD:6379."
        )
    return Layout(cpus // threads, "cpu", threads, 0)


@dataclass
class _Job:
    """A task on its way: the workers that died at it, and whether to wait for who else is at it."""

    task: Task
    lost: list[str] = field(default_factory=list)
    wait: bool = False


@dataclass(eq=False)
class _Member:
    """One actor: named once it is set up; ``future`` is what it is at, ``job`` the task of it."""

    actor: Any
    future: Future[Report] | None
    name: str = ""
    job: _Job | None = None


class RayEngine:
    """Hands each worker one task at a time; workers stay for the stages to come, until :meth:`close`."""

    def __init__(self, address: str | None = None, workers: int | None = None, threads: int = 1):
        """``address`` is host:port of a cluster's head, "auto" or "local"; where left out, ``RAY_ADDRESS``
        or a cluster of this machine's own. ``workers`` caps how many there are; each computes with
        ``threads`` threads. Raises BenchError where Ray is not installed."""
        self.address = address or os.environ.get("RAY_ADDRESS") or "local"
        if self.address == "local":
            _keep_private()
        try:
            import ray
        except ImportError as error:
            raise BenchError(
                f"--engine ray needs a package that is missing: {error}. "
                "Install it: pip install 'tr0n-bench[ray]'."
            ) from error
        self._ray: Any = ray
        self.workers, self.threads = workers, threads
        self._is_ours = False
        self._workshop: Workshop | None = None
        self._crew: list[_Member] = []
        self._failed_starts: list[Exception] = []
        self._looked = -LOOK_AGAIN_S
        self._room: Layout | None = None
        self._blueprint: Blueprint | None = None

    # --- the contract

    def perform(self, tasks: Sequence[Task], workshop: Workshop) -> Iterator[Outcome]:
        """As :class:`bench.engines.Engine` says. A task whose worker dies goes to another; after
        :data:`MOST_LOSSES` deaths it fails. Raises BenchError where there is no cluster, or no worker can be
        set up."""
        if not tasks:
            return
        self._open(workshop)
        queue, left = deque(_Job(task) for task in tasks), len(tasks)
        try:
            while left:
                self._hire(left)
                self._hand_out(queue)
                for member in self._ended():
                    outcome = self._outcome(member, queue)
                    if outcome is not None:
                        self._hand_out(queue)  # before the caller takes its time
                        left -= 1
                        yield outcome
        finally:
            for member in list(self._crew):
                if member.job is not None:  # the caller has gone: nobody will ask for it
                    self._dismiss(member)

    def close(self) -> None:
        """Ends the workers, and the cluster if it was started here."""
        for member in list(self._crew):
            self._dismiss(member)
        if self._workshop is not None and self._blueprint is not None:
            with contextlib.suppress(ArtifactError):
                self._workshop.store.remove(*self._blueprint.hello)
        self._workshop = self._blueprint = self._room = None
        self._failed_starts = []
        if self._is_ours:
            self._is_ours = False
            self._ray.shutdown()

    # --- cluster and workers

    def _open(self, workshop: Workshop) -> None:
        """Connects, and says what the workers of this workshop are made from."""
        if self._workshop is workshop:
            return
        if self._workshop is not None:
            self.close()
        store = workshop.store
        if store.root.startswith("memory://"):
            raise ArtifactError(
                f"'{store.root}' lies in one process; workers share a folder, s3:// or gs://."
            )
        if not self._ray.is_initialized():
            self._connect()
        self._workshop, self._looked = workshop, -LOOK_AGAIN_S
        room = self._look()
        hello = ("cluster", "hello", secrets.token_hex(8))
        store.write(*hello, b"")
        suite, assembly = workshop.suite, workshop.assembly
        self._blueprint = Blueprint(
            suite=suite.resolved(),
            source=suite.source,
            store=store.root,
            hello=hello,
            device=room.device,
            threads=self.threads,
            cache_dir=str(assembly.cache_dir.absolute()),
            folder=os.getcwd(),
            sys_path=tuple(os.path.abspath(entry) for entry in sys.path if os.path.exists(entry or ".")),
        )

    def _connect(self) -> None:
        address = _reachable(self.address)
        options: dict[str, Any] = {"address": address, "logging_level": "ERROR", "log_to_driver": False}
        if address == "local":
            options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns
        try:
            with _own_signals():
                self._ray.init(**options)
        except Exception as error:
            raise BenchError(
                f"cannot use the Ray cluster '{address}': {_brief(error)} Give --address host:port of its "
                "head, or leave it out for one of this machine's own."
            ) from error
        self._is_ours = True

    def _look(self) -> Layout:
        """What the cluster has room for, looked at anew from time to time. What workers work on stays."""
        assert self._workshop is not None
        if time.monotonic() - self._looked >= LOOK_AGAIN_S or self._room is None:
            self._looked = time.monotonic()
            resources = self._ray.cluster_resources()
            if self._room is None:
                self._room = layout(resources, self._workshop.assembly.asked, self.threads)
            else:
                with contextlib.suppress(BenchError):  # nodes have gone: others may come
                    now = layout(resources, "cuda" if self._room.num_gpus else "cpu", self.threads)
                    self._room = replace(self._room, workers=now.workers)
        return self._room

    def _hire(self, left: int) -> None:
        """Brings the crew to as many as there is room and work for. Raises BenchError where none can be set
        up."""
        room = self._look()
        wanted = min(left, room.workers, self.workers or room.workers)
        if len(self._failed_starts) >= MOST_FAILED_STARTS:
            if not self._crew:
                raise BenchError(f"no Ray worker could be set up. {_brief(self._failed_starts[-1])}")
            return
        while len(self._crew) < wanted:
            actor = (
                self._ray.remote(Worker)
                .options(num_cpus=room.num_cpus, num_gpus=room.num_gpus, max_restarts=0)
                .remote(self._blueprint)
            )
            self._crew.append(_Member(actor, actor.set_up.remote().future()))

    def _dismiss(self, member: _Member) -> None:
        self._crew.remove(member)
        with contextlib.suppress(Exception):  # it, or the cluster, may be gone
            self._ray.kill(member.actor)

    # --- tasks

    def _hand_out(self, queue: deque[_Job]) -> None:
        """A task to every worker that has none."""
        for member in self._crew:
            if member.future is None and queue:
                member.job = job = queue.popleft()
                member.future = member.actor.perform.remote(job.task, job.wait).future()

    def _ended(self) -> list[_Member]:
        """Who has ended what it was at; nobody, after a while."""
        at_work = {member.future: member for member in self._crew if member.future is not None}
        ended, _ = wait(at_work, timeout=LOOK_AGAIN_S, return_when=FIRST_COMPLETED)
        return [at_work[future] for future in ended]

    def _outcome(self, member: _Member, queue: deque[_Job]) -> Outcome | None:
        """What became of a worker's task; None where it is to be done again, or there was none."""
        assert member.future is not None
        future, job = member.future, member.job
        member.future = member.job = None
        death = future.exception()
        if death is not None:
            self._dismiss(member)
            if job is not None:
                return self._lost(job, member.name, death, queue)
            self._failed_start(BenchError(f"a Ray worker died while it was set up: {_brief(death)}"))
            return None
        report = future.result()
        error = report.raised()
        if job is None:
            member.name = report.worker
            if error is not None:
                self._dismiss(member)
                self._failed_start(error)
            return None
        assert self._workshop is not None
        self._workshop.made.update(report.counts)
        if type(error) is ArtifactError:
            raise error
        if error is None and report.made is None:
            job.wait = True  # another process is at it: look again when nothing else is left
            queue.append(job)
            return None
        return Outcome(job.task, bool(report.made), report.seconds, report.worker, error, tuple(job.lost))

    def _lost(self, job: _Job, worker: str, death: BaseException, queue: deque[_Job]) -> Outcome | None:
        job.lost.append(worker)
        if len(job.lost) < MOST_LOSSES:
            queue.appendleft(job)
            return None
        error = BenchError(
            f"{job.task.label}: {len(job.lost)} workers died at it, one after the other "
            f"({', '.join(job.lost)}). The last: {_brief(death)} If memory ran out, lower samples.tile or "
            "samples.shard; --engine local shows what it does."
        )
        return Outcome(job.task, worker=worker, error=error, lost=tuple(job.lost))

    def _failed_start(self, error: Exception) -> None:
        self._failed_starts.append(error)
        log.warning("%s", _brief(error))


def _reachable(address: str) -> str:
    """The address, looked at before Ray waits for it over a minute. Raises BenchError."""
    if address in ("local", "auto"):
        return address
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise BenchError(
            f"Ray address '{address}' is not host:port of a cluster's head, 'auto' or 'local'. To run on a "
            "cluster from outside, submit the command to it: ray job submit -- tr0n-bench run ..."
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACH_S) as connection:
            connection.settimeout(REACH_S)
            is_head = _speaks_grpc(connection)
    except (OSError, OverflowError) as error:
        raise BenchError(
            f"no Ray cluster answers at '{address}': {error}. Start one with ray start --head, or leave "
            "--address out for one of this machine's own."
        ) from error
    if not is_head:
        raise BenchError(
            f"what answers at '{address}' is no Ray head. Give the address that ray start --head prints, "
            "port 6379 by default; 8265 is the dashboard's."
        )
    return address


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether the other side greets as HTTP/2 servers do, which a Ray head is one of."""
    if os.environ.get("RAY_USE_TLS") == "1":
        return True
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    return connection.recv(9)[3:4] == b"\x04"  # the type of a SETTINGS frame


def _keep_private() -> None:
    """A cluster of this machine's own sends nothing anywhere and takes work from this process alone.

    Ray listens on all addresses and reads the mode when it is imported; versions before 2.52 have no tokens.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keeps this process's handler of SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _brief(error: BaseException) -> str:
    """The message on one line, cut short, ending in a full stop."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 400 else text[:399] + "…").rstrip(".") + "."
