"""Processes that work on an artifact store, for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OPEN = """
import sys
from bench.artifacts import ArtifactError, open_store
store = open_store(sys.argv[1])
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Runs a script that finds ``store`` opened at the first argument."""
    command = [sys.executable, "-c", OPEN + script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def temporaries(root: Path) -> list[str]:
    """Temporary files of writes anywhere below a folder."""
    return [str(path) for path in root.rglob(".*.tmp")]
