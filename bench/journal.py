"""The journal of a run: a line of JSON per event, appended whole, so that several processes can share it."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

from bench.artifacts.faults import told
from bench.errors import ResultError
from bench.provenance import utc_now


class Journal:
    """Attempts, what was made, what failed, how each attempt ended. Read by people and by ``report``."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, event: str, **details: Any) -> None:
        """Appends an event with time, host and process. Raises ResultError where it cannot be written."""
        entry = {
            "time": utc_now(), "event": event, "host": socket.gethostname(), "pid": os.getpid(), **details
        }  # fmt: skip
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        with told("written", str(self.path), (OSError,), ResultError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = b"\n" + line  # what a full disk cut short stays a line of its own
                # One write on a file opened for appending: lines of several processes never mix.
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """All events; a line that was cut short is left out."""
        if not self.path.exists():
            return []
        events = []
        for line in self.path.read_bytes().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events
