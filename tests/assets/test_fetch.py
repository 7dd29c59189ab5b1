"""Downloads from a real HTTPS server: only what is whole, verified and came over TLS gets its name."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.assets import AssetError
from bench.assets import fetch as module
from bench.assets.fetch import check, fetch

BODY = bytes(range(256)) * 4096
OTHER = hashlib.sha256(b"another file").hexdigest()
ROOT = Path(__file__).parents[2]


def sends(body: bytes, *, length: int | None = -1, status: int = 200, then=None):
    """An answer; ``length`` is the Content-Length stated (None: none, -1: the right one)."""

    def answer(handler) -> None:
        handler.send_response(status)
        if length is not None:
            handler.send_header("Content-Length", str(len(body) if length == -1 else length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
        if then is not None:
            then(handler)

    return answer


def redirects(target: str, status: int = 302):
    def answer(handler) -> None:
        handler.send_response(status)
        handler.send_header("Location", target)
        handler.end_headers()
        handler.wfile.write(b"moved")

    return answer


def dies(handler) -> None:
    """Breaks the connection off, as a crash of the server does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(handler.connection.detach())
    raise ConnectionError


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "new" / "assets"


@pytest.fixture
def refused(server, make_asset, folder, trusting):
    """Fetches and gives the error's message; nothing may be left in the folder."""

    def run(**changes) -> str:
        allow = changes.pop("allow_unknown", False)
        with pytest.raises(AssetError) as caught:
            fetch(make_asset(**changes), folder, context=trusting, allow_unknown=allow)
        assert list(folder.iterdir() if folder.exists() else ()) == []
        return str(caught.value)

    return run


# --- what works


def test_a_good_download_is_kept_and_not_repeated(server, make_asset, folder, trusting):
    server.answers["/file"] = sends(BODY)
    steps = []
    path = fetch(make_asset(), folder, context=trusting, progress=lambda *step: steps.append(step))
    assert path == folder / "thing.bin"
    assert path.read_bytes() == BODY
    assert [item.name for item in folder.iterdir()] == ["thing.bin"]
    assert steps == [("thing", size, len(BODY)) for size in range(1 << 18, len(BODY) + 1, 1 << 18)]
    assert fetch(make_asset(), folder, context=trusting) == path
    assert server.hits == ["/file"]


def test_ssl_cert_file_names_the_certificates_to_trust(server, make_asset, folder, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server.answers["/file"] = sends(BODY)
    assert fetch(make_asset(), folder).read_bytes() == BODY


@pytest.mark.parametrize("damaged", [BODY[:-1], bytes([BODY[0] ^ 1]) + BODY[1:], b""])
def test_a_damaged_file_on_disk_is_replaced(server, make_asset, folder, trusting, damaged):
    folder.mkdir(parents=True)
    (folder / "thing.bin").write_bytes(damaged)
    server.answers["/file"] = sends(BODY)
    assert check(make_asset(), folder).status == "wrong"
    assert fetch(make_asset(), folder, context=trusting).read_bytes() == BODY
    assert check(make_asset(), folder).status == "ok"


def test_a_damaged_file_on_disk_stays_when_its_download_fails(server, make_asset, folder, trusting):
    folder.mkdir(parents=True)
    (folder / "thing.bin").write_bytes(b"mine")
    server.answers["/file"] = sends(BODY[::-1])
    with pytest.raises(AssetError):
        fetch(make_asset(), folder, context=trusting)
    assert [(item.name, item.read_bytes()) for item in folder.iterdir()] == [("thing.bin", b"mine")]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_to_https_are_followed(server, make_asset, folder, trusting, status):
    server.answers["/file"] = redirects("/moved", status)
    server.answers["/moved"] = redirects(server.url("/there"), status)
    server.answers["/there"] = sends(BODY)
    assert fetch(make_asset(), folder, context=trusting).read_bytes() == BODY
    assert server.hits == ["/file", "/moved", "/there"]


def test_the_length_may_be_unstated_where_the_hash_is_known(server, make_asset, folder, trusting):
    server.answers["/file"] = sends(BODY, length=None)
    assert fetch(make_asset(bytes=None), folder, context=trusting).read_bytes() == BODY


def test_a_chunked_body(server, make_asset, folder, trusting):
    def chunked(handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(BODY), 100_000):
            chunk = BODY[start : start + 100_000]
            handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    server.answers["/file"] = chunked
    assert fetch(make_asset(bytes=None), folder, context=trusting).read_bytes() == BODY


def test_downloads_at_the_same_time_do_not_meet(server, make_asset, folder, trusting):
    server.answers["/file"] = sends(BODY)
    together = threading.Barrier(4, timeout=60)

    def meet(task: str, done: int, total: int) -> None:
        if done == total:
            together.wait()  # all have a whole file under a temporary name

    with ThreadPoolExecutor(4) as pool:
        running = [
            pool.submit(fetch, make_asset(), folder, context=trusting, progress=meet) for _ in range(4)
        ]
        assert {item.result() for item in running} == {folder / "thing.bin"}
    assert [item.read_bytes() for item in folder.iterdir()] == [BODY]


def test_a_proxy_from_the_environment_sees_only_the_tunnel(
    server, plain_server, make_asset, folder, trusting, monkeypatch
):
    def tunnel(handler) -> None:
        plain_server.hits.append(f"{handler.command} {handler.path}")
        host, port = handler.path.split(":")
        with socket.create_connection((host, int(port))) as far:
            handler.connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            back = threading.Thread(target=pump, args=(far, handler.connection), daemon=True)
            back.start()
            pump(handler.connection, far)
            back.join()

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(1 << 16):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    plain_server.http.RequestHandlerClass.do_CONNECT = tunnel
    monkeypatch.setenv("HTTPS_PROXY", plain_server.url("/"))
    server.answers["/file"] = sends(BODY)
    assert fetch(make_asset(), folder, context=trusting).read_bytes() == BODY
    assert plain_server.hits == [f"CONNECT localhost:{server.http.server_address[1]}"]


# --- what is not what it should be


def test_a_wrong_hash_is_refused_with_both_hashes(server, refused):
    server.answers["/file"] = sends(BODY)
    found = hashlib.sha256(BODY).hexdigest()
    assert f"has the sha256 {found}, expected {OTHER}. Nothing was kept" in refused(sha256=OTHER)


def test_a_wrong_prefix_is_refused_too(server, refused):
    server.answers["/file"] = sends(BODY)
    message = refused(sha256=None, sha256_prefix="6726825d", allow_unknown=True)
    assert f"has the sha256 {hashlib.sha256(BODY).hexdigest()}, expected 6726825d..." in message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (sends(BODY + b"x"), "sends 1048577 bytes, allowed are 1048576"),
        (sends(BODY + b"x", length=None), "sends more than 1048576 bytes, allowed are 1048576"),
        (sends(BODY[:-1]), "has 1048575 bytes, expected 1048576"),
        (sends(BODY[:-1], length=None), "cut short: 1048575 bytes of 1048576"),
        (sends(b""), "has 0 bytes, expected 1048576"),
    ],
    ids=["larger", "larger-unstated", "smaller", "smaller-unstated", "empty"],
)
def test_another_size_is_refused(server, refused, answer, message):
    server.answers["/file"] = answer
    assert message in refused()


def test_a_file_of_unknown_size_has_a_limit(server, refused, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    server.answers["/file"] = sends(BODY)
    assert "sends 1048576 bytes, allowed are 1000" in refused(bytes=None)
    server.answers["/file"] = sends(BODY, length=None)
    assert "sends more than 1000 bytes" in refused(bytes=None)


# --- what does not come whole


@pytest.mark.parametrize("then", [None, dies], ids=["closed", "died"])
@pytest.mark.parametrize("known", [True, False], ids=["known-hash", "unknown-hash"])
def test_a_body_shorter_than_stated_is_refused(server, refused, then, known):
    server.answers["/file"] = sends(BODY[:600_000], length=len(BODY), then=then)
    changes = {} if known else {"sha256": None, "bytes": None, "allow_unknown": True}
    message = refused(**changes)
    assert "cut short" in message or "cannot be read" in message
    assert "Try again" in message


def test_a_chunked_body_that_ends_early_is_refused(server, refused):
    def chunked(handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(f"{len(BODY):x}\r\n".encode() + BODY[:600_000])

    server.answers["/file"] = chunked
    assert "cannot be read: IncompleteRead" in refused(sha256=None, bytes=None, allow_unknown=True)


def test_an_end_that_could_be_anywhere_is_refused(server, refused):
    server.answers["/file"] = sends(BODY, length=None)
    message = refused(sha256=None, bytes=None, allow_unknown=True)
    assert "does not say how long the file is" in message


def test_a_server_that_falls_silent_is_given_up(server, refused, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    server.answers["/file"] = sends(BODY[:600_000], length=len(BODY), then=lambda _: server.over.wait())
    assert "timed out" in refused()


def test_an_interrupted_fetch_leaves_nothing(server, make_asset, folder, trusting):
    def interrupt(task, done, total) -> None:
        raise KeyboardInterrupt

    server.answers["/file"] = sends(BODY)
    with pytest.raises(KeyboardInterrupt):
        fetch(make_asset(), folder, context=trusting, progress=interrupt)
    assert list(folder.iterdir()) == []


CHILD = """
import sys
from pathlib import Path
from bench.assets.fetch import fetch
from bench.assets.lock import Asset
asset = Asset.model_validate_json(sys.argv[1])
fetch(asset, Path(sys.argv[2]), progress=lambda task, done, total: print(done, flush=True))
"""


def test_a_killed_fetch_leaves_no_file_under_the_name(server, make_asset, folder, trusting, certificate):
    half = sends(BODY[:600_000], length=len(BODY), then=lambda _: server.over.wait())
    server.answers["/file"] = half
    environment = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    command = [sys.executable, "-c", CHILD, make_asset().model_dump_json(), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"262144\n"  # the first block is on its way to the disk
        child.kill()
    assert child.returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".thing.bin.")
    assert check(make_asset(), folder).status == "absent"
    server.answers["/file"] = sends(BODY)
    path = fetch(make_asset(), folder, context=trusting)
    assert sorted(folder.iterdir()) == [left, path]  # it might still be another process's
    os.utime(left, (0, 0))
    path.unlink()
    fetch(make_asset(), folder, context=trusting)
    assert list(folder.iterdir()) == [path]


# --- what is not secure


def test_a_redirect_to_http_is_refused_without_asking_there(server, plain_server, refused):
    plain_server.answers["/file"] = sends(BODY)
    server.answers["/file"] = redirects(plain_server.url())
    message = refused()
    assert f"redirects to {plain_server.url()}, which is refused: only https://" in message
    assert plain_server.hits == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://localhost/file", "data:,x"])
def test_a_redirect_to_another_protocol_is_refused(server, refused, target):
    server.answers["/file"] = redirects(target)
    message = refused()
    assert "refused" in message or "not allowed" in message


def test_endless_redirects_are_given_up(server, refused):
    server.answers["/file"] = redirects("/file")
    assert "answered 302" in refused()


def test_an_http_address_is_refused(plain_server, make_asset, folder):
    with pytest.raises(ValueError, match="https"):
        make_asset(url=plain_server.url())
    unchecked = make_asset().model_copy(update={"url": plain_server.url()})
    with pytest.raises(AssetError, match="is refused: only https://"):
        fetch(unchecked, folder)
    assert plain_server.hits == []


def test_an_untrusted_certificate_is_refused(server, make_asset, folder):
    server.answers["/file"] = sends(BODY)
    with pytest.raises(AssetError, match=r"is not trusted: self.signed certificate.*SSL_CERT_FILE"):
        fetch(make_asset(), folder)
    assert server.hits == []
    assert list(folder.iterdir()) == []


def test_a_certificate_for_another_host_is_refused(server, refused):
    port = server.http.server_address[1]
    message = refused(url=f"https://127.0.0.1:{port}/file")
    assert "is not trusted" in message
    assert "not valid for '127.0.0.1'" in message
    assert server.hits == []


def test_the_default_settings_verify(monkeypatch, make_asset, folder):
    made = []

    def create(*arguments, **options):
        made.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", create)
    with pytest.raises(AssetError, match="is not trusted"):
        fetch(make_asset(), folder)
    assert [(item.verify_mode, item.check_hostname) for item in made] == [(ssl.CERT_REQUIRED, True)]


# --- what the server or the disk refuses


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (500, "Internal")])
def test_an_error_answer_is_named_with_the_way_by_hand(server, refused, folder, make_asset, status, reason):
    server.answers["/file"] = sends(b"no", status=status)
    message = refused()
    assert f"answered {status} {reason}" in message
    assert f"put it at '{folder / 'thing.bin'}' (sha256 {make_asset().sha256}, 1048576 bytes)" in message


def test_a_partial_answer_is_refused(server, refused):
    server.answers["/file"] = sends(BODY, status=206)
    assert "answered 206, expected 200" in refused()


def test_no_server(refused):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        message = refused(url=f"https://localhost:{unused.getsockname()[1]}/file")
    assert "cannot be read" in message
    assert "refused" in message


def test_a_folder_that_cannot_be_written(server, make_asset, tmp_path, trusting):
    server.answers["/file"] = sends(BODY)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AssetError, match=r"cannot write to '.*/file'"):
        fetch(make_asset(), tmp_path / "file", context=trusting)


def test_a_full_disk(server, make_asset, folder, trusting, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    server.answers["/file"] = sends(BODY)
    with pytest.raises(AssetError, match="No space left on device"):
        fetch(make_asset(), folder, context=trusting)
    assert list(folder.iterdir()) == []


def test_a_folder_in_the_files_place(make_asset, folder):
    (folder / "thing.bin").mkdir(parents=True)
    with pytest.raises(AssetError, match=r"thing.bin' is not a file. Move it away"):
        fetch(make_asset(), folder)


# --- offline, and hashes that nobody knows


@pytest.mark.parametrize("switch", ["argument", "1", "true"])
def test_offline_says_which_file_to_put_where(server, make_asset, folder, monkeypatch, switch):
    if switch != "argument":
        monkeypatch.setenv("TR0N_BENCH_OFFLINE", switch)
    with pytest.raises(AssetError) as caught:
        fetch(make_asset(), folder, offline=True if switch == "argument" else None)
    message = str(caught.value)
    assert f"'{folder / 'thing.bin'}' is missing, and downloads are switched off" in message
    assert f"Download {server.url()} by other means and put it at '{folder / 'thing.bin'}'" in message
    assert f"sha256 {make_asset().sha256}, 1048576 bytes" in message
    assert server.hits == []
    folder.mkdir(parents=True)
    (folder / "thing.bin").write_bytes(BODY)
    assert fetch(make_asset(), folder, offline=True) == folder / "thing.bin"
    (folder / "thing.bin").write_bytes(BODY[:-1])
    with pytest.raises(
        AssetError, match="has 1048575 bytes, expected 1048576, and downloads are switched off"
    ):
        fetch(make_asset(), folder, offline=True)


@pytest.mark.parametrize("value", ["", "0"])
def test_the_switch_can_be_off(server, make_asset, folder, trusting, monkeypatch, value):
    monkeypatch.setenv("TR0N_BENCH_OFFLINE", value)
    server.answers["/file"] = sends(BODY)
    assert fetch(make_asset(), folder, context=trusting).exists()


def test_an_unknown_hash_must_be_allowed_and_is_reported(server, make_asset, folder, trusting, caplog):
    server.answers["/file"] = sends(BODY)
    asset = make_asset(sha256=None, sha256_prefix=hashlib.sha256(BODY).hexdigest()[:8])
    with pytest.raises(AssetError, match=r"cannot be verified.*--allow-unknown-hash.*allow_unknown=True"):
        fetch(asset, folder, context=trusting)
    assert server.hits == []
    with caplog.at_level(logging.WARNING, "bench.assets"):
        path = fetch(asset, folder, context=trusting, allow_unknown=True)
    assert hashlib.sha256(BODY).hexdigest() in caplog.text
    assert check(asset, folder).status == "unverified"
    caplog.clear()
    assert fetch(asset, folder, context=trusting, allow_unknown=True) == path
    assert hashlib.sha256(BODY).hexdigest() in caplog.text
    assert server.hits == ["/file"]
    with pytest.raises(AssetError, match="cannot be verified"):
        fetch(asset, folder, context=trusting)
