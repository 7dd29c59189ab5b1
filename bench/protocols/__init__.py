"""Evaluation protocols: everything besides the samples that a score depends on, as frozen, hashed records."""

from bench.protocols.base import Protocol, with_base
from bench.protocols.compare import differing_fields, record_protocol, require_comparable, stamped

__all__ = [
    "Protocol",
    "differing_fields",
    "record_protocol",
    "require_comparable",
    "stamped",
    "with_base",
]
