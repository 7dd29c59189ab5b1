"""Shared by the tests on real processes: the forking parent, and a run that nobody disturbed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults.processes import Place, Server, quick_suite


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run of the quick suite."""
    place = Place(tmp_path_factory.mktemp("whole"), quick_suite())
    assert server.run(place) == 0, place.output()
    return place
