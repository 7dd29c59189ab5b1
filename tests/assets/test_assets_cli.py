"""``tr0n-bench assets`` against a lock file and an HTTPS server of the test's own."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.assets import lock
from bench.cli import main

ROOT = Path(__file__).parents[2]
BODY = b"content of an asset" * 1000


def call(*arguments: object) -> int:
    return main(["assets", *map(str, arguments)])


@pytest.fixture
def place(tmp_path, server, certificate, monkeypatch) -> Path:
    """The default folder; the lock file names two assets: one locked, one of unknown hash and size."""
    asset = {
        "url": server.url(),
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "bytes": len(BODY),
        "file": "locked.bin",
        "license": "MIT",
        "what": "A locked file",
    }
    unknown = {**asset, "sha256": None, "bytes": None, "file": "unknown.bin", "what": "An unknown file"}
    path = tmp_path / "assets.yaml"
    path.write_text(yaml.safe_dump({"locked": asset, "unknown": unknown}))
    monkeypatch.setattr(lock, "LOCK", path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("TR0N_BENCH_CACHE", str(tmp_path / "cache"))

    def answer(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY)

    server.answers["/file"] = answer
    return tmp_path / "cache" / "assets"


def test_list_fetch_and_verify(place, server, capsys):
    assert call("list") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"# assets in {place}",
        "asset\twhat\tsize\tlicense\tpresent",
        "locked\tA locked file\t19.0 kB\tMIT\tno",
        "unknown\tAn unknown file\t-\tMIT\tno",
    ]
    assert call("fetch", "locked") == 0
    assert capsys.readouterr().out == f"{place / 'locked.bin'}\n"
    assert (place / "locked.bin").read_bytes() == BODY
    assert call("list", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [(entry["name"], entry["present"]) for entry in content] == [("locked", True), ("unknown", False)]
    assert content[0] == {
        "name": "locked",
        "url": server.url(),
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "sha256_prefix": None,
        "bytes": len(BODY),
        "file": "locked.bin",
        "license": "MIT",
        "what": "A locked file",
        "present": True,
    }
    assert call("verify") == 0
    assert capsys.readouterr().out == "locked\tok\nunknown\tabsent\n"


def test_verify_names_a_wrong_file_and_exits_with_1(place, capsys):
    place.mkdir(parents=True)
    (place / "locked.bin").write_bytes(BODY[::-1])
    assert call("verify") == 1
    captured = capsys.readouterr()
    assert f"locked\twrong: the sha256 of '{place / 'locked.bin'}' is" in captured.out
    assert f"expected {hashlib.sha256(BODY).hexdigest()}" in captured.out
    assert captured.err == (
        f"error: wrong files in '{place}': locked. Fetch them anew: tr0n-bench assets fetch NAME.\n"
    )
    assert call("fetch", "locked") == 0
    assert call("verify") == 0


def test_an_unknown_hash_must_be_allowed(place, server, capsys, caplog):
    assert call("fetch", "locked", "unknown") == 1
    captured = capsys.readouterr()
    assert captured.out == f"{place / 'locked.bin'}\n"
    assert "asset 'unknown': its sha256 is not known" in captured.err
    assert "--allow-unknown-hash" in captured.err
    assert call("fetch", "locked", "unknown", "--allow-unknown-hash") == 0
    assert server.hits == ["/file", "/file"]
    assert hashlib.sha256(BODY).hexdigest() in caplog.text
    assert call("verify") == 0
    assert f"unverified: the sha256 of '{place / 'unknown.bin'}' is" in capsys.readouterr().out


def test_offline_and_another_folder(place, server, tmp_path, capsys):
    other = tmp_path / "other"
    assert call("fetch", "locked", "--folder", other, "--offline") == 1
    message = capsys.readouterr().err
    assert message.startswith(
        f"error: asset 'locked': '{other / 'locked.bin'}' is missing, and downloads are"
    )
    assert f"put it at '{other / 'locked.bin'}'" in message
    assert server.hits == []
    assert call("fetch", "locked", "--folder", other) == 0
    assert call("fetch", "locked", "--folder", other, "--offline") == 0
    assert call("list", "--folder", other) == 0
    assert "MIT\tyes" in capsys.readouterr().out
    assert call("verify", "--folder", other) == 0
    assert server.hits == ["/file"]
    assert not place.exists()


def test_a_wrong_name_downloads_nothing(place, server, capsys):
    assert call("fetch", "locked", "lokced") == 1
    assert "there is no asset 'lokced'. Did you mean 'locked'?" in capsys.readouterr().err
    assert server.hits == []
    assert call("fetch") == 2


CHILD = """
import sys
from pathlib import Path
from bench.assets import lock
from bench.cli import main
lock.LOCK = Path(sys.argv.pop(1))
sys.exit(main())
"""


def test_the_hash_shows_on_standard_error_of_a_process(place):
    arguments = ["assets", "fetch", "unknown", "--allow-unknown-hash", "--folder", str(place)]
    command = [sys.executable, "-c", CHILD, str(lock.LOCK), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout == f"{place / 'unknown.bin'}\n"
    assert f"sha256 of what came: {hashlib.sha256(BODY).hexdigest()}" in result.stderr
