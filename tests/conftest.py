"""Shared by all tests: one thread, a private cache, and a small suite on the digits world."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import SMALL_SUITE, FinishedRun

# Folders of tests that run whole suites or train, each up to half a minute.
LONG = ("engines", "faults", "check", "suites", "zoo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that processors that share the files end together."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Here and in the processes that tests start: two tests at a time use two processors. Threads of one
    process wait for each other in busy loops: two such processes took 17 times as long at once as in
    turn."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def private_cache(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TR0N_BENCH_CACHE", str(cache_dir))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> FinishedRun:
    """A run with its own store, for tests that only read it or take a copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TR0N_BENCH_CACHE", str(cache_dir))
        return FinishedRun(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def small_suite(tmp_path: Path):
    """Writes the small suite with changes (sections merged, variants replaced) and returns its path."""

    def write(**changes: Any) -> Path:
        content = copy.deepcopy(SMALL_SUITE)
        for key, value in changes.items():
            if key != "variants" and isinstance(value, dict):
                content[key] = {**content.get(key, {}), **value}
            else:
                content[key] = value
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write
