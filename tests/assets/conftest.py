"""A real HTTPS server on the loopback interface, with a certificate made for the test run."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.assets.lock import Asset

BODY = bytes(range(256)) * 4096  # 1 MiB, four blocks of a download


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for localhost and its key, in one file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "localhost.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no offline switch from outside."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("TR0N_BENCH_OFFLINE", raising=False)


Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each path as ``answers`` says and remembers what was asked for."""

    def __init__(self, certificate: Path | None):
        self.answers: dict[str, Answer] = {}
        self.hits: list[str] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.hits.append(self.path)
                # clients that give up midway are part of the tests
                with contextlib.suppress(OSError):
                    outer.answers[self.path](self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.block_on_close = False
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
            self.scheme = "https"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def url(self, path: str = "/file") -> str:
        return f"{self.scheme}://localhost:{self.http.server_address[1]}{path}"

    def stop(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(certificate: Path) -> Iterator[Server]:
    running = Server(certificate)
    yield running
    running.stop()


@pytest.fixture
def plain_server() -> Iterator[Server]:
    """One without TLS, which no download may reach."""
    running = Server(None)
    yield running
    running.stop()


@pytest.fixture
def trusting(certificate: Path) -> ssl.SSLContext:
    """A client's TLS settings that trust the server's certificate."""
    return ssl.create_default_context(cafile=str(certificate))


@pytest.fixture
def make_asset(server: Server) -> Callable[..., Asset]:
    """An asset on the server that is BODY; fields can be changed."""

    def make(**changes: Any) -> Asset:
        fields = {
            "name": "thing",
            "url": server.url(),
            "sha256": hashlib.sha256(BODY).hexdigest(),
            "bytes": len(BODY),
            "file": "thing.bin",
            "license": "MIT",
            "what": "A thing",
        }
        return Asset.model_validate({**fields, **changes})

    return make
