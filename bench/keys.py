"""Content keys: short hashes of plain configuration, the same in every process and version."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and ASCII only: equal plain values give equal text.

    Accepts what JSON holds, and infinities. Raises TypeError on anything else.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def content_key(value: Any) -> str:
    """16 hex characters (64 bits of BLAKE2b) of :func:`canonical_json`."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=8).hexdigest()


def slug(label: str) -> str:
    """The label in lower case with everything but a-z and 0-9 turned to single dashes; at most 60 long."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower())[:60].strip("-") or "variant"
