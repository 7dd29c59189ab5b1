"""Downloads over TLS: a file appears under its name only once it is whole and its hash is right."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import http.client
import logging
import os
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from bench.assets import AssetError
from bench.assets.lock import Asset

Progress = Callable[[str, int, int], None]

MAX_BYTES = 20_000_000_000  # of a file whose size is not known
BLOCK = 1 << 18
TIMEOUT_S = 60.0  # without a byte
LEFT_BEHIND_S = 3600.0  # a temporary file untouched for so long belongs to a dead process

_log = logging.getLogger("bench.assets")


@dataclass(frozen=True)
class State:
    """What is on disk for an asset; "unverified" is a file whose right hash nobody knows."""

    status: Literal["ok", "absent", "wrong", "unverified"]
    message: str


def check(asset: Asset, folder: Path) -> State:
    """Reads and hashes an asset's file. Raises AssetError where it cannot be read."""
    path = folder / asset.file
    if not path.exists():
        return State("absent", f"'{path}' is missing")
    if not path.is_file():
        raise AssetError(f"'{path}' is not a file. Move it away: asset '{asset.name}' belongs there.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if asset.bytes not in (None, size):
                return State("wrong", f"'{path}' has {size} bytes, expected {asset.bytes}")
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AssetError(f"'{path}' cannot be read: {error}. Mend it or move it away.") from error
    expected = _expected_instead(asset, found)
    if expected:
        return State("wrong", f"the sha256 of '{path}' is {found}, expected {expected}")
    if asset.sha256 is None:
        return State("unverified", f"the sha256 of '{path}' is {found}; the lock file does not know it")
    return State("ok", f"'{path}' is whole")


def is_offline(offline: bool | None = None) -> bool:
    """``offline`` where given; otherwise whether ``TR0N_BENCH_OFFLINE`` is set to anything but 0."""
    return os.environ.get("TR0N_BENCH_OFFLINE", "") not in ("", "0") if offline is None else offline


def fetch(
    asset: Asset,
    folder: Path,
    *,
    offline: bool | None = None,
    allow_unknown: bool = False,
    progress: Progress | None = None,
    context: ssl.SSLContext | None = None,
) -> Path:
    """The asset's file in ``folder``: the one that is there if it is right, else a new download.

    ``progress`` gets (asset name, bytes so far, bytes in all; 0 where unknown). ``context`` replaces the
    default TLS settings, which trust the system's certificates or those of ``SSL_CERT_FILE``; a proxy is
    taken from the environment. An asset without a known hash needs ``allow_unknown``; its hash is logged.

    Raises AssetError when offline and the file is not there, when the download fails, is not secure, too
    large or cut short, and when its hash or size is not as expected. Then nothing new is in the folder.
    """
    folder = Path(folder)
    if asset.sha256 is None and not allow_unknown:
        raise AssetError(
            f"asset '{asset.name}': its sha256 is not known, so what {asset.url} sends cannot be verified. "
            "To take it unverified, say so: --allow-unknown-hash on the command line, allow_unknown=True in "
            "Python. Its hash is then reported, to be compared with one that you trust."
        )
    state = check(asset, folder)
    if state.status == "ok":
        return folder / asset.file
    if state.status == "unverified":
        _log.warning("asset '%s': %s.", asset.name, state.message)
        return folder / asset.file
    if is_offline(offline):
        raise AssetError(
            f"asset '{asset.name}': {state.message}, and downloads are switched off (TR0N_BENCH_OFFLINE or "
            f"--offline). {_by_hand(asset, folder)}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder, asset)
        found = _download(asset, folder, progress or (lambda task, done, total: None), context)
    except OSError as error:  # network errors are AssetErrors by now
        raise AssetError(
            f"asset '{asset.name}': cannot write to '{folder}': {error}. Mend it or name another folder."
        ) from error
    if asset.sha256 is None:
        _log.warning("asset '%s': nobody knows its right hash; sha256 of what came: %s.", asset.name, found)
    return folder / asset.file


def _download(asset: Asset, folder: Path, progress: Progress, context: ssl.SSLContext | None) -> str:
    """Downloads, checks and renames; gives the sha256."""
    partial = folder / f".{asset.file}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    digest = hashlib.sha256()
    size = 0
    with contextlib.ExitStack() as stack:
        stack.callback(partial.unlink, missing_ok=True)
        with _response(asset, folder, context) as response, partial.open("xb") as file:
            total = _stated_size(asset, response)
            for block in _blocks(asset, folder, response):
                size += len(block)
                if size > (asset.bytes or MAX_BYTES):
                    raise _too_large(asset, f"more than {asset.bytes or MAX_BYTES}")
                file.write(block)
                digest.update(block)
                progress(asset.name, size, total or 0)
            if total is not None and size != total:
                raise AssetError(
                    f"asset '{asset.name}': the download was cut short: {size} bytes of {total} came from "
                    f"{asset.url}. Nothing was kept. Try again."
                )
            file.flush()
            os.fsync(file.fileno())
        found = digest.hexdigest()
        if asset.bytes not in (None, size):
            raise _mismatch(asset, f"{size} bytes", f"{asset.bytes}")
        if expected := _expected_instead(asset, found):
            raise _mismatch(asset, f"the sha256 {found}", expected)
        os.replace(partial, folder / asset.file)
    return found


def _stated_size(asset: Asset, response: http.client.HTTPResponse) -> int | None:
    """Content-Length, refused where it cannot be right."""
    total = response.length  # None for a chunked body, whose end is marked
    if total is None:
        if not response.chunked and asset.bytes is None and asset.sha256 is None:
            raise AssetError(
                f"asset '{asset.name}': {asset.url} does not say how long the file is, and neither its size "
                "nor its hash is known: a file cut short would pass for whole. Nothing was kept."
            )
        return asset.bytes
    if total > (asset.bytes or MAX_BYTES):
        raise _too_large(asset, str(total))
    if asset.bytes not in (None, total):
        raise _mismatch(asset, f"{total} bytes", f"{asset.bytes}")
    return total


def _blocks(asset: Asset, folder: Path, response: http.client.HTTPResponse) -> Iterator[bytes]:
    with _network_errors(asset, folder):
        while block := response.read(BLOCK):
            yield block


def _response(asset: Asset, folder: Path, context: ssl.SSLContext | None) -> Any:
    """The opened answer. Only handlers for https are there: no other protocol can be reached."""
    if urlsplit(asset.url).scheme != "https":
        raise AssetError(f"asset '{asset.name}': {asset.url} is refused: only https:// is allowed.")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=context or ssl.create_default_context()),
        _SecureRedirects(asset),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(asset.url, headers={"User-Agent": "tr0n-bench"})
    with _network_errors(asset, folder):
        response = opener.open(request, timeout=TIMEOUT_S)
    if response.status != 200:
        response.close()
        raise AssetError(
            f"asset '{asset.name}': {asset.url} answered {response.status}, expected 200. Nothing was kept."
        )
    return response


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, asset: Asset):
        self.asset = asset

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # its body is of no use and may be long
        if urlsplit(newurl).scheme != "https":
            raise AssetError(
                f"asset '{self.asset.name}': {req.full_url} redirects to {newurl}, which is refused: only "
                "https:// is allowed. Nothing was kept."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _network_errors(asset: Asset, folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            reason = f"answered {error.code} {' '.join(str(error.reason).split())}."
        elif isinstance(cause, ssl.SSLCertVerificationError):
            reason = (
                f"is not trusted: {cause.verify_message}. Correct the clock, or name the certificates to "
                "trust in SSL_CERT_FILE."
            )
        else:
            reason = f"cannot be read: {cause}."
        raise AssetError(
            f"asset '{asset.name}': {asset.url} {reason} Nothing was kept. Try again, or: "
            f"{_by_hand(asset, folder)}"
        ) from error


def _expected_instead(asset: Asset, found: str) -> str | None:
    """The hash, or the beginning of one, that ``found`` should have had; None where it is right."""
    if asset.sha256 not in (None, found):
        return asset.sha256
    if asset.sha256_prefix and not found.startswith(asset.sha256_prefix):
        return f"{asset.sha256_prefix}..."
    return None


def _mismatch(asset: Asset, found: str, expected: str) -> AssetError:
    return AssetError(
        f"asset '{asset.name}': what {asset.url} sends has {found}, expected {expected}. Nothing was kept. "
        "The file was changed at its source or on the way: do not use it before that is cleared up."
    )


def _too_large(asset: Asset, found: str) -> AssetError:
    return AssetError(
        f"asset '{asset.name}': {asset.url} sends {found} bytes, allowed are {asset.bytes or MAX_BYTES}. "
        "Nothing was kept."
    )


def _by_hand(asset: Asset, folder: Path) -> str:
    facts = [f"sha256 {asset.sha256}"] if asset.sha256 else []
    facts += [f"{asset.bytes} bytes"] if asset.bytes else []
    about = f" ({', '.join(facts)})" if facts else ""
    return f"Download {asset.url} by other means and put it at '{folder / asset.file}'{about}."


def _sweep(folder: Path, asset: Asset) -> None:
    """Removes what killed downloads of this asset left."""
    for path in folder.glob(f".{glob.escape(asset.file)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
                path.unlink()
