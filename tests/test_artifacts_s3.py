"""Artifacts over the S3 protocol, against a server on the loopback interface."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from support import SMALL_SUITE

from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact, open_store
from bench.errors import ArtifactError
from bench.runner import run
from bench.store import RunStore, comparable
from bench.suite import load_suite

pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")
requests = pytest.importorskip("requests")

PLACE = ("latents", "0f3a", "part-0.bin")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def account(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Credentials for the server and no other, an empty bucket, no connection of another test."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    requests.post(f"{endpoint}/moto-api/reset", timeout=30).raise_for_status()
    s3fs.S3FileSystem.clear_instance_cache()
    at(endpoint).backend.fs.mkdir("bucket")
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def at(endpoint: str, url: str = "s3://bucket/some/prefix", **options) -> ArtifactStore:
    return open_store(url, storage_options={"client_kwargs": {"endpoint_url": endpoint}, **options})


@pytest.fixture
def store(endpoint: str) -> ArtifactStore:
    return at(endpoint)


def test_round_trip_listing_and_removal(store):
    payload = random.Random(0).randbytes(300_000)
    inputs = {"generator": "vae", "seeds": [1, 2], "note": "ü"}
    entry = store.write(*PLACE, payload, inputs)
    store.write("latents", "0f3b", "b", b"")
    store.write("latents", "0f3b", "a", b"")
    assert entry.path == "s3://bucket/some/prefix/latents/0f3a/part-0.bin"
    assert store.read(*PLACE) == payload
    assert store.header(*PLACE)["inputs"] == inputs
    assert store.header("latents", "0f3b", "a")["bytes"] == 0
    assert store.keys("latents") == ["0f3a", "0f3b"]
    assert store.names("latents", "0f3b") == ["a", "b"]
    assert all(finding.ok for finding in store.verify())
    store.remove(*PLACE)
    store.remove(*PLACE)
    assert not store.exists(*PLACE)
    assert store.keys("latents") == ["0f3b"]
    with pytest.raises(MissingArtifact, match=r"s3://bucket/some/prefix/latents/0f3a/part-0\.bin"):
        store.read(*PLACE)


def test_a_key_that_begins_as_another_is_not_mixed_up(store):
    store.write("kind", "ab", "1", b"")
    store.write("kind", "abc", "2", b"")
    assert store.names("kind", "ab") == ["1"]


def test_a_bucket_without_a_prefix_holds_a_store(endpoint):
    store = at(endpoint, "s3://bucket")
    assert list(store.verify()) == []
    store.write(*PLACE, b"payload")
    assert [finding.path for finding in store.verify()] == ["s3://bucket/latents/0f3a/part-0.bin"]
    with pytest.raises(ArtifactError, match="names no bucket"):
        at(endpoint, "s3://")


def test_the_endpoint_can_come_from_the_environment(store, endpoint, monkeypatch):
    store.write(*PLACE, b"payload")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert open_store("s3://bucket/some/prefix").read(*PLACE) == b"payload"


def test_what_another_client_writes_is_seen(store, endpoint):
    other = at(endpoint, skip_instance_cache=True)
    assert other.backend.fs is not store.backend.fs
    for count in range(1, 4):
        other.write("kind", "key", str(count), b"payload")
        assert len(store.names("kind", "key")) == count
        other.write("kind", f"key-{count}", "n", b"payload")
        assert len(store.keys("kind")) == count + 1
    assert not store.exists("kind", "key", "late")
    other.write("kind", "key", "late", b"payload")
    assert store.exists("kind", "key", "late")


def test_damage_is_found_and_set_aside(store):
    rng = random.Random(0)
    for index in range(20):
        place = ("kind", str(index), "n")
        store.write(*place, rng.randbytes(rng.randint(0, 500)))
        path = "/".join(place)
        content = bytearray(store.backend.read(path))
        match index % 3:
            case 0:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            case 1:
                del content[rng.randrange(len(content)) :]
            case 2:
                content += b"\n"
        store.backend.write(path, [bytes(content)])
        assert [finding.path for finding in store.verify() if not finding.ok] == [store.backend.address(path)]
        with pytest.raises(CorruptArtifact, match=f"set aside as 's3://bucket/.*/set-aside/kind-{index}-n-"):
            store.read(*place)
        with pytest.raises(MissingArtifact):
            store.read(*place)
        kept = [aside for aside in store.backend.files("set-aside") if f"/kind-{index}-n-" in aside]
        assert [store.backend.read(aside) for aside in kept] == [bytes(content)]


def test_swapped_and_empty_objects_are_found(store):
    store.write("kind", "a", "n", b"payload")
    store.backend.fs.cp_file("bucket/some/prefix/kind/a/n", "bucket/some/prefix/kind/b/n")
    store.backend.write("kind/c/n", [b""])
    with pytest.raises(CorruptArtifact, match="holds kind/a/n instead"):
        store.header("kind", "b", "n")
    with pytest.raises(CorruptArtifact, match="no artifact header"):
        store.header("kind", "c", "n")
    with pytest.raises(CorruptArtifact, match="holds kind/a/n instead"):
        store.read("kind", "b", "n")
    with pytest.raises(CorruptArtifact, match="truncated: 0 bytes"):
        store.read("kind", "c", "n")
    assert store.keys("kind") == ["a"]


def test_there_are_no_locks_and_no_leftovers(store):
    with store.lock(*PLACE) as first, store.lock(*PLACE, wait=False) as second:
        assert first is True
        assert second is True
    assert store.sweep() == []


def test_a_bucket_that_does_not_exist_is_named(endpoint):
    store = at(endpoint, "s3://missing/prefix")
    for call in (lambda: store.write(*PLACE, b""), lambda: store.keys("latents")):
        with pytest.raises(ArtifactError, match=r"'s3://missing/.*bucket does not exist\. Check address"):
            call()


def test_refused_requests_are_named(store, endpoint):
    store.write(*PLACE, b"payload")
    requests.post(f"{endpoint}/moto-api/reset-auth", data=b"0", timeout=30)  # from now on none is allowed
    try:
        for call in (
            lambda: store.write(*PLACE, b"other"),
            lambda: store.read(*PLACE),
            lambda: store.header(*PLACE),
            lambda: store.exists(*PLACE),
            lambda: store.names(*PLACE[:2]),
            lambda: store.remove(*PLACE),
        ):
            with pytest.raises(ArtifactError, match=r"'s3://bucket/.*cannot be .*Give this user access"):
                call()
    finally:
        requests.post(f"{endpoint}/moto-api/reset-auth", data=b"inf", timeout=30)
    assert store.read(*PLACE) == b"payload"


def test_missing_credentials_are_named(endpoint, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ArtifactError, match=r"cannot be written: Unable to locate credentials\. Check"):
        at(endpoint, skip_instance_cache=True).write(*PLACE, b"payload")


def test_a_store_works_on_in_a_forked_process(store, endpoint):
    script = """
import os, sys
from bench.artifacts import open_store
store = open_store(sys.argv[1], storage_options={"client_kwargs": {"endpoint_url": sys.argv[2]}})
store.write("kind", "parent", "n", b"parent")
child = os.fork()
if child == 0:
    store.write("kind", "child", "n", store.read("kind", "parent", "n") + b"-child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert store.read("kind", "child", "n") == b"parent-child"
"""
    subprocess.run([sys.executable, "-c", script, store.root, endpoint], check=True)
    assert store.keys("kind") == ["child", "parent"]


def test_a_suite_runs_on_a_bucket(endpoint, tmp_path, monkeypatch):
    """Same records as with a local store; nothing is done twice; a damaged object is replaced."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    matrix = {**SMALL_SUITE["variants"]["matrix"], "sampler": ["prior", "tr0n"]}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL_SUITE, "variants": {"matrix": matrix}}))
    suite, url = load_suite(path), "s3://bucket/runs/store"

    def records(folder: str, store_url: str) -> tuple[dict[str, Any], dict[str, int]]:
        summary = run(suite, tmp_path / folder, "cpu", store_url=store_url)
        assert summary.num_failed == 0
        store = RunStore(tmp_path / folder)
        names = sorted(found.parent.name for found in (tmp_path / folder).glob("cells/*/record.json"))
        return {name: comparable(store.read_record(name)) for name in names}, dict(summary.made)

    local, made = records("local", str(tmp_path / "store"))
    remote, made_there = records("remote", url)
    assert len(local) == 2
    assert remote == local
    assert made_there == made
    again, made_again = records("elsewhere", url)
    assert again == local
    assert not {"pairs", "translator", "reference", "samples", "judge_images"} & set(made_again)

    store = at(endpoint, url)
    (key,) = store.keys("translator")
    (name,) = store.names("translator", key)
    content = bytearray(store.backend.read(f"translator/{key}/{name}"))
    content[len(content) // 2] ^= 1
    store.backend.write(f"translator/{key}/{name}", [bytes(content)])
    for sample_key in store.keys("samples"):
        for kind in ("samples", "images", "snapshots"):
            for span in store.names(kind, sample_key):
                store.remove(kind, sample_key, span)
    repaired, _ = records("repaired", url)
    assert repaired == local
    assert [aside for aside in store.backend.files("set-aside") if "/translator-" in aside]
