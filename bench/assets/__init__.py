"""Assets: public files that the harness can use but does not ship (weights, data sets).

They come over TLS and are kept only when their hash is the one in the lock file; archives are checked
whole before anything is unpacked, and weight files are read without running code.
"""

from __future__ import annotations

from bench.errors import BenchError


class AssetError(BenchError):
    """An asset is unknown, missing, cannot be downloaded, does not match its hash, or is unsafe to unpack."""
