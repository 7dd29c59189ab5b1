"""The journal of a run: a line of JSON per event, appended whole, so that several processes can share it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from bench.provenance import utc_now


class Journal:
    """Attempts, what was made, what failed, how each attempt ended. Read by people and by ``report``."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, event: str, **details: Any) -> None:
        """Appends an event with time, host and process."""
        entry = {
            "time": utc_now(), "event": event, "host": socket.gethostname(), "pid": os.getpid(), **details
        }  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        # One write on a file opened for appending: lines of several processes never mix.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def read(self) -> list[dict[str, Any]]:
        """All events; a last line that a crash cut short is left out."""
        if not self.path.exists():
            return []
        events = []
        for line in self.path.read_bytes().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events
