"""Artifacts: what costs much to compute, stored under its content key, in a folder or an object store.

::

    <root>/<kind>/<key>/<name>      one object per artifact: header, payload, checksum (see ``form``)
    <root>/set-aside/...            objects that failed their check, kept to be looked at
    <root>/.locks/...               lock files, in a local folder only

An object is written whole or not at all and verified on every read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from bench.artifacts.faults import CorruptArtifact, MissingArtifact
from bench.artifacts.folder import Folder
from bench.artifacts.remote import Remote
from bench.artifacts.store import ArtifactStore, Entry, Finding
from bench.errors import ArtifactError, nearest

__all__ = [
    "ArtifactError",
    "ArtifactStore",
    "CorruptArtifact",
    "Entry",
    "Finding",
    "MissingArtifact",
    "open_store",
]

ALLOWED = "a folder, file://, memory://, s3://bucket/prefix or gs://bucket/prefix"
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
LOCAL = ("file", "local")


def open_store(url: str, *, storage_options: Mapping[str, Any] | None = None) -> ArtifactStore:
    """The store at a local folder or fsspec URL; nothing is read or written yet.

    ``storage_options`` go to the fsspec file system (endpoint, credentials, ...); a local folder takes
    none. Raises ArtifactError for an unknown protocol, a missing extra package or a URL without a bucket.
    """
    from fsspec import available_protocols
    from fsspec.core import url_to_fs

    if not url.strip():
        raise ArtifactError(f"the artifact store's address is empty. Give {ALLOWED}.")
    protocol = urlsplit(url).scheme if "://" in url else "file"
    options = dict(storage_options or {})
    if options and protocol in LOCAL:
        raise ArtifactError(
            f"{url}: a local folder takes no storage options, found {', '.join(sorted(options))}."
        )
    if protocol not in available_protocols():
        raise ArtifactError(
            f"{url}: unknown protocol '{protocol}'. Allowed: {ALLOWED}."
            f"{nearest(protocol, ('file', 'memory', 's3', 'gs'))}"
        )
    try:
        fs, root = url_to_fs(url, **options)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        remedy = f"Install it: pip install 'tr0n-bench[{extra}]'." if extra else "Install what it names."
        raise ArtifactError(
            f"{url}: '{protocol}' needs a package that is missing: {error}. {remedy}"
        ) from error
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{url}: cannot be opened: {error}. Give {ALLOWED}.") from error
    if protocol in LOCAL:
        return ArtifactStore(Folder(root))
    if protocol in EXTRAS and not root.strip("/"):
        raise ArtifactError(f"{url}: names no bucket. Give {protocol}://bucket/prefix.")
    return ArtifactStore(Remote(fs, root))
