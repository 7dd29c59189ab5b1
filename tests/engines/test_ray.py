"""The same suite on a Ray cluster: same records, dead workers, failing cells, clusters that are not there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray

from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.cli import main
from bench.engines import ray as ray_engine
from bench.engines.ray import Layout, RayEngine, layout
from bench.engines.worker import Blueprint, Report, build, packed
from bench.errors import ArtifactError, BenchError, WeightError
from bench.journal import Journal
from bench.plan import plan
from bench.runner import RunSummary, choose_device, run
from bench.store import RunStore, comparable
from bench.suite import load_suite
from bench.workshop import Workshop

HERE = Path(__file__).parent
PATIENCE_S = 240.0
# 20 samples of a cell in 5 tasks, 40 images of the reference in 10
SMALLER = ["samples.shard=4", "protocol.num_reference=40"]
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # else whatever runs beside these tests starves the workers
}
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of this machine, which this process is connected to."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=3,
            include_dashboard=False,
            logging_level="ERROR",
            log_to_driver=False,
            object_store_memory=ray_engine.OBJECT_STORE_BYTES,
        )
        signal.signal(signal.SIGTERM, before)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(autouse=True)
def components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def perform(path: Path, folder: Path, engine: RayEngine | None = None, progress: Any = None) -> RunSummary:
    """Runs a suite, in spans of four samples, with a store of its own in ``folder``."""
    return run(
        load_suite(path, SMALLER), folder / "run", "cpu", progress,
        store_url=str(folder / "store"), engine=engine,
    )  # fmt: skip


def made(folder: Path) -> list[dict[str, Any]]:
    return [event for event in Journal(folder / "run" / "journal.jsonl").read() if event["event"] == "made"]


def artifacts(folder: Path) -> list[str]:
    """What a store holds, but for locks and empty folders."""
    root = folder / "store"
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    )


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """The small suite, run by one process with one thread."""
    from support import SMALL_SUITE
    from yaml import safe_dump

    folder = tmp_path_factory.mktemp("in-process")
    (folder / "small.yaml").write_text(safe_dump(SMALL_SUITE, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TR0N_BENCH_CACHE", str(cache_dir))
        assert perform(folder / "small.yaml", folder).num_failed == 0
    return folder


def assert_equal_runs(first: Path, second: Path) -> None:
    """Records, pixels, latents and tables to the last bit, and the same artifacts."""
    one, other = RunStore(first / "run"), RunStore(second / "run")
    assert len(one.records()) == len(other.records()) == 4
    for a, b in zip(one.records(), other.records()):
        assert a.status == "ok"
        assert comparable(a) == comparable(b)
        assert np.array_equal(one.read_images(a.cell.id), other.read_images(b.cell.id))
        assert np.array_equal(one.read_latents(a.cell.id), other.read_latents(b.cell.id))
        pd.testing.assert_frame_equal(
            one.read_samples(a.cell.id), other.read_samples(b.cell.id), check_exact=True
        )
    assert artifacts(first) == artifacts(second)


# --- same numbers


def test_two_workers_leave_what_one_process_leaves(cluster, in_process, small_suite, tmp_path):
    summary = perform(small_suite(), tmp_path, RayEngine(workers=2))
    assert_equal_runs(in_process, tmp_path)
    events = made(tmp_path)
    assert {event["task"] for event in events} == {event["task"] for event in made(in_process)}
    assert len(events) == summary.made["pairs"] + summary.made["translator"] + summary.made["reference"] + 20
    workers = {event["worker"] for event in events}
    assert len(workers) == 2
    assert f"{socket.gethostname()}:{os.getpid()}" not in workers
    again = perform(small_suite(), tmp_path)
    assert again.made["samples"] == again.made["reference"] == again.made["records"] == 0
    assert summary.made == Journal(in_process / "run" / "journal.jsonl").read()[-1]["made"]
    assert ray.is_initialized(), "the engine found the cluster running and must leave it so"


def test_a_killed_worker_loses_nothing(cluster, in_process, small_suite, tmp_path):
    killed: list[str] = []

    def kill_one(task: str, done: int, total: int) -> None:
        events = made(tmp_path)
        if task == "stage samples" and done == 3:
            assert total == 20
            killed.append(events[-1]["worker"])
            os.kill(int(killed[0].partition(":")[2]), signal.SIGKILL)

    summary = perform(small_suite(), tmp_path, RayEngine(workers=2), kill_one)
    assert len(killed) == 1
    assert summary.num_failed == 0
    assert_equal_runs(in_process, tmp_path)
    redone = [event for event in Journal(tmp_path / "run" / "journal.jsonl").read() if "lost" in event]
    assert [event["lost"] for event in redone] == [killed]
    assert redone[0]["worker"] not in killed
    after = made(tmp_path)[-10:]
    assert len({event["worker"] for event in after}) == 2, "another worker takes the place of the dead one"


# --- faults that stay where they are


def generators(small_suite, **kinds: dict[str, Any]) -> Path:
    """The small suite with one cell per generator, drawn from the prior; the sound one last."""
    return small_suite(
        generators=kinds,
        variants={
            "include": [
                {"data": "digits", "generator": name, "conditioner": "class", "sampler": "prior"}
                for name in [*kinds, "vae"]
            ]
        },
    )


def test_failing_cells_fail_alone_with_the_errors_of_one_process(cluster, small_suite, tmp_path):
    path = generators(
        small_suite,
        nan={"kind": "python", "target": "support:NanGenerator"},
        gone={"kind": "vae", "weights": str(tmp_path / "gone.safetensors")},
        broken={"kind": "python", "target": "ray_components:Broken"},
    )
    summary = perform(path, tmp_path / "ray", RayEngine(workers=1))
    assert (summary.num_ok, summary.num_failed) == (1, 3)
    perform(path, tmp_path / "one")
    nan, gone, broken, sound = RunStore(tmp_path / "ray" / "run").records()
    expected = RunStore(tmp_path / "one" / "run").records()
    assert [comparable(record) for record in (nan, gone, sound)] == [
        comparable(expected[k]) for k in (0, 1, 3)
    ]
    assert "not finite" in nan.error["message"]
    assert gone.error["type"] == "WeightError"
    assert broken.error["message"] == "Obstinate: no reason"  # its class cannot travel, its words can


def test_a_task_that_kills_every_worker_fails_its_cell_alone(cluster, small_suite, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "MOST_LOSSES", 2)
    path = generators(small_suite, deadly={"kind": "python", "target": "ray_components:Deadly"})
    summary = run(
        load_suite(path), tmp_path / "run", "cpu", store_url=str(tmp_path / "s"), engine=RayEngine(workers=2)
    )
    assert (summary.num_ok, summary.num_failed) == (1, 1)
    deadly, sound = RunStore(tmp_path / "run").records()
    assert (deadly.status, sound.status) == ("failed", "ok")
    assert "2 workers died at it, one after the other" in deadly.error["message"]
    (failed,) = [e for e in Journal(tmp_path / "run" / "journal.jsonl").read() if e["event"] == "failed"]
    assert len(set(failed["lost"])) == 2
    assert all(name in deadly.error["message"] for name in failed["lost"])


def test_a_fault_of_the_store_ends_the_run(cluster, small_suite, tmp_path):
    path = generators(small_suite, full={"kind": "python", "target": "ray_components:Unstored"})
    with pytest.raises(ArtifactError, match="the disk is full") as caught:
        perform(path, tmp_path, RayEngine(workers=1))
    assert type(caught.value) is ArtifactError
    assert Journal(tmp_path / "run" / "journal.jsonl").read()[-1]["event"] == "interrupted"


def test_a_worker_that_cannot_be_set_up_says_why(cluster, small_suite, tmp_path, monkeypatch):
    from support import NanGenerator

    module = types.ModuleType("only_here")
    vars(module)["NanGenerator"] = NanGenerator
    monkeypatch.setitem(sys.modules, "only_here", module)
    monkeypatch.setattr(ray_engine, "MOST_FAILED_STARTS", 1)
    path = generators(small_suite, here={"kind": "python", "target": "only_here:NanGenerator"})
    with pytest.raises(BenchError, match=r"no Ray worker could be set up.*cannot import 'only_here'"):
        perform(path, tmp_path, RayEngine(workers=1))


# --- the cluster


def command(path: Path, folder: Path, *options: str) -> list[str]:
    return [
        "run", str(path), "--out", str(folder / "run"), "--store", str(folder / "store"), "--device", "cpu",
        "--no-report", *(part for key in SMALLER for part in ("--set", key)), "--engine", "ray", *options,
    ]  # fmt: skip


@contextlib.contextmanager
def process(arguments: list[str]) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, **QUIET, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    environment.pop("RAY_ADDRESS", None)
    started = subprocess.Popen(
        [sys.executable, "-m", "bench", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def test_the_command_line_joins_a_cluster_and_a_signal_stops_it(cluster, small_suite, tmp_path):
    slow = {"kind": "python", "target": "ray_components:Slow", "args": {"folder": str(tmp_path)}}
    path = generators(small_suite, slow=slow)
    with process(command(path, tmp_path, "--address", cluster, "--workers", "1")) as started:
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "reached").exists():
            assert time.monotonic() < deadline
            assert started.poll() is None, started.communicate()[0]
            time.sleep(0.05)
        started.send_signal(signal.SIGTERM)
        output, _ = started.communicate(timeout=PATIENCE_S)  # the worker would be at it for longer
    assert started.returncode == 128 + signal.SIGTERM, output
    assert "the same command goes on from there" in output
    assert Journal(tmp_path / "run" / "journal.jsonl").read()[-1]["event"] == "interrupted"
    assert not [path for path in artifacts(tmp_path) if path.startswith("cluster")]
    assert len([node for node in ray.nodes() if node["Alive"]]) == 1


def test_without_an_address_it_starts_a_cluster_and_ends_it(small_suite, tmp_path):
    path = generators(small_suite)
    with process(command(path, tmp_path, "--workers", "1")) as started:
        output, _ = started.communicate(timeout=PATIENCE_S)
    assert started.returncode == 0, output
    assert "1 cells ok, 0 failed" in output
    (worker,) = {event["worker"] for event in made(tmp_path)}
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker.partition(":")[2]), 0)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process were connected to no cluster."""

    def init(**options: Any) -> None:
        raise AssertionError("Ray would be waited for, over a minute")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", "no Ray cluster answers at '127.0.0.1:{port}'"),
        ("nonsense", "'nonsense' is not host:port"),
        ("ray://127.0.0.1:10001", "ray job submit"),
    ],
)
def test_a_wrong_address_is_one_clear_error(apart, small_suite, tmp_path, capsys, address, message):
    port = str(closed_port())
    address, message = address.replace("{port}", port), message.replace("{port}", port)
    assert main(command(small_suite(), tmp_path, "--address", address)) == 1
    assert message in capsys.readouterr().err


def test_an_address_of_something_else_is_refused(apart, small_suite, tmp_path, capsys):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        greeter = threading.Thread(target=lambda: listener.accept()[0].sendall(b"SSH-2.0-no-ray\r\n"))
        greeter.start()
        assert main(command(small_suite(), tmp_path, "--address", address)) == 1
        greeter.join()
    assert f"what answers at '{address}' is no Ray head" in capsys.readouterr().err


def test_ray_address_names_the_cluster(apart, small_suite, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port()}")
    assert main(command(small_suite(), tmp_path)) == 1
    assert f"answers at '{os.environ['RAY_ADDRESS']}'" in capsys.readouterr().err


def test_a_finished_run_needs_no_cluster(apart, in_process, capsys):
    arguments = command(in_process / "small.yaml", in_process, "--address", f"127.0.0.1:{closed_port()}")
    assert main(arguments) == 0
    assert "4 cells ok" in capsys.readouterr().out


def test_a_missing_package_is_named(small_suite, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(command(small_suite(), tmp_path)) == 1
    assert "pip install 'tr0n-bench[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("resources", "asked", "threads", "expected"),
    [
        ({"CPU": 8.0}, "auto", 1, Layout(8, "cpu", 1, 0)),
        ({"CPU": 9.0}, "cpu", 2, Layout(4, "cpu", 2, 0)),
        ({"CPU": 2.0, "GPU": 4.0}, "auto", 1, Layout(4, "auto", 0, 1)),
        ({"CPU": 2.0, "GPU": 4.0}, "cuda:1", 1, Layout(4, "cuda", 0, 1)),
        ({"CPU": 2.0, "GPU": 4.0}, "cpu", 1, Layout(2, "cpu", 1, 0)),
    ],
)
def test_one_worker_per_gpu_or_else_per_cpu(resources, asked, threads, expected):
    assert layout(resources, asked, threads) == expected


@pytest.mark.parametrize(
    ("resources", "asked", "message"),
    [({"CPU": 2.0}, "cuda", "has no GPU"), ({"memory": 1.0}, "auto", "has 0 CPUs and no GPU")],
)
def test_a_cluster_without_what_is_asked_for_is_refused(resources, asked, message):
    with pytest.raises(BenchError, match=message):
        layout(resources, asked, 1)


def test_nodes_that_join_are_counted_and_change_no_device(small_suite, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "LOOK_AGAIN_S", 0.0)
    engine = RayEngine()
    engine._workshop = workshop_of(small_suite(), str(tmp_path))
    seen = iter([{"CPU": 2.0}, {"CPU": 6.0, "GPU": 8.0}, {"memory": 1.0}])
    engine._ray = types.SimpleNamespace(cluster_resources=lambda: next(seen))
    assert [engine._look() for _ in range(3)] == [
        Layout(2, "cpu", 1, 0), Layout(6, "cpu", 1, 0), Layout(6, "cpu", 1, 0)
    ]  # fmt: skip


# --- what travels


def workshop_of(path: Path, store_url: str) -> Workshop:
    suite = load_suite(path)
    return Workshop(Assembly(suite, choose_device("cpu")), plan(suite), open_store(store_url))


def test_a_store_in_memory_is_refused(small_suite):
    workshop = workshop_of(small_suite(), "memory://bench-ray")
    cell = next(iter(workshop.cells))
    tasks = workshop.tasks(cell, list(workshop.needs(cell).parts()))
    with pytest.raises(ArtifactError, match="lies in one process"):
        list(RayEngine().perform(tasks, workshop))


def test_a_worker_that_sees_another_store_is_refused(small_suite, tmp_path):
    suite = load_suite(small_suite())
    blueprint = Blueprint(
        suite=suite.resolved(), source=suite.source, store=str(tmp_path / "elsewhere"),
        hello=("cluster", "hello", "word"), device="cpu", threads=1, cache_dir=str(tmp_path),
        folder=os.getcwd(), sys_path=(),
    )  # fmt: skip
    with pytest.raises(ArtifactError, match=r"worker a:1 does not see .* folder that all nodes share"):
        build(blueprint, "a:1")
    open_store(blueprint.store).write(*blueprint.hello, b"")
    assert build(blueprint, "a:1").cells.keys() == {cell.id for cell in plan(suite).cells}


def test_a_worker_that_finds_other_keys_makes_nothing(small_suite, tmp_path):
    from bench.engines.worker import Worker

    workshop = workshop_of(small_suite(), str(tmp_path / "store"))
    guide = {"kind": "classifier", "model": "digits-classifier-guide"}
    other = workshop_of(small_suite(judges={"digits": guide}), str(tmp_path / "store"))
    cell = next(iter(workshop.cells))
    task = next(t for t in workshop.tasks(cell, list(workshop.needs(cell).parts())) if t.stage == "reference")
    worker = Worker.__new__(Worker)
    worker.name, worker.workshop = "a:1", other
    report = worker.perform(task, True)
    assert "worker a:1 finds other keys" in str(report.raised())
    assert not open_store(str(tmp_path / "store")).keys("reference")
    worker.workshop = workshop
    assert worker.perform(task, True).made is True


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (WeightError("no file"), WeightError),
        (KeyError("name"), KeyError),
        (ArtifactError("full"), ArtifactError),
    ],
)
def test_errors_travel_with_type_and_message(error, expected):
    arrived = Report("a:1", error=packed(error)).raised()
    assert type(arrived) is expected
    assert str(arrived) == str(error)


def test_the_traceback_of_a_defect_travels_as_a_note():
    try:
        {}["name"]
    except KeyError as error:
        arrived = Report("a:1", error=packed(error)).raised()
    assert arrived is not None
    assert "test_ray.py" in "".join(arrived.__notes__)
