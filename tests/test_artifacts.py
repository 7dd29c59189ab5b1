"""Artifacts: round trips, every kind of damage found, addresses and names checked."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact, form, open_store
from bench.errors import ArtifactError

PLACE = ("latents", "0f3a", "part-0.bin")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path) -> ArtifactStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(f"memory://{tmp_path.name}")


def raw(store: ArtifactStore, path: str, change=None) -> bytes:
    """An object as it lies in the store, after ``change`` (bytes to bytes) where given."""
    content = store.backend.read(path)
    if change is not None:
        content = change(content)
        store.backend.write(path, [content])
    return content


# --- round trips


@given(payload=st.binary(max_size=300), inputs=st.dictionaries(st.text(), PLAIN, max_size=3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_payload_and_inputs_read_back_equal(store, payload, inputs):
    entry = store.write(*PLACE, payload, inputs)
    assert store.read(*PLACE) == payload
    assert store.header(*PLACE) == {
        "schema": 1, "kind": PLACE[0], "key": PLACE[1], "name": PLACE[2], "bytes": len(payload),
        "inputs": inputs,
    }  # fmt: skip
    assert (entry.kind, entry.key, entry.name, entry.bytes) == (*PLACE, len(payload))
    assert raw(store, "/".join(PLACE)).endswith(entry.sha256.encode())
    assert [finding.problem for finding in store.verify()] == [None]


def test_listing_leaves_out_what_a_store_cannot_have_written(store):
    for key, name in (("b", "2"), ("b", "1"), ("a", "x.npz")):
        store.write("kind", key, name, b"payload")
    for path in ("kind/b/.1.0a0a0a0a-1-0b0b0b0b.tmp", "kind/b/README", "kind/b/deep/3", "kind/notes", "note"):
        store.backend.write(path, [b"foreign"])
    store.backend.write("kind/c/Foreign", [b"foreign"])
    assert store.names("kind", "b") == ["1", "2"]
    assert store.keys("kind") == ["a", "b"]
    assert store.names("kind", "none") == store.keys("none") == []
    assert [finding.path for finding in store.verify()] == [
        store.backend.address(path) for path in ("kind/a/x.npz", "kind/b/1", "kind/b/2")
    ]


def test_removing_and_missing(store):
    assert not store.exists(*PLACE)
    store.write(*PLACE, b"old")
    store.write(*PLACE, b"new")
    assert store.exists(*PLACE)
    assert store.read(*PLACE) == b"new"
    store.remove(*PLACE)
    store.remove(*PLACE)
    assert not store.exists(*PLACE)
    assert store.keys(PLACE[0]) == []
    for method in (store.read, store.header):
        with pytest.raises(MissingArtifact, match=r"part-0\.bin' is missing"):
            method(*PLACE)


# --- damage


def damage(rng: random.Random, content: bytes) -> bytes:
    """One of: truncated, one bit flipped, bytes appended."""
    kind = rng.choice(("truncate", "flip", "append"))
    if kind == "truncate":
        return content[: rng.randrange(len(content))]
    if kind == "append":
        return content + rng.choice((b"\n", b"0", rng.randbytes(rng.randint(1, 100))))
    changed = bytearray(content)
    changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_is_missed(store, seed):
    rng = random.Random(seed)
    for round_ in range(50):
        payloads = {}
        for key in ("a", "b", "c"):
            payloads[key] = rng.randbytes(rng.choice((0, 1, rng.randint(2, 2000))))
            store.write("kind", key, "n", payloads[key], {"round": round_})
        sound = {key: raw(store, f"kind/{key}/n") for key in payloads}
        chance = rng.random()
        if chance < 0.15:
            bad = {"a": sound["b"], "b": sound["a"]}
        elif chance < 0.3:
            bad = {}
            store.remove("kind", "a", "n")
            with pytest.raises(MissingArtifact):
                store.read("kind", "a", "n")
            del payloads["a"]
        else:
            bad = {"a": damage(rng, sound["a"])}
        for key, content in bad.items():
            store.backend.write(f"kind/{key}/n", [content])
        found = [finding.path for finding in store.verify("kind") if not finding.ok]
        assert found == [store.backend.address(f"kind/{key}/n") for key in bad]
        for key, content in bad.items():
            before = set(store.backend.files("set-aside"))
            with pytest.raises(
                CorruptArtifact, match=r"set aside as '.*kind-[ab]-n-\d{8}T\d{6}Z-[0-9a-f]{4}'"
            ):
                store.read("kind", key, "n")
            (new,) = set(store.backend.files("set-aside")) - before
            assert store.backend.read(new) == content
            assert not store.exists("kind", key, "n")
        for key in payloads.keys() - bad.keys():
            assert store.read("kind", key, "n") == payloads[key]


def test_every_flipped_bit_and_every_length_is_found():
    place = form.Place("k", "a", "n")
    content = b"".join(form.encode(place, b"payload\n", {"a": 1}))
    assert form.decode(place, content) == b"payload\n"
    broken = [content[:size] for size in range(len(content))]
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        broken.append(bytes(flipped))
    for data in broken:
        with pytest.raises(CorruptArtifact):
            form.decode(place, data)


def signed_with_a_wrong_length(data: bytes) -> bytes:
    content = data[:-64].replace(b'"bytes":7', b'"bytes":6')
    return content + hashlib.sha256(content).hexdigest().encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (signed_with_a_wrong_length, r"holds 7 bytes, its header says 6"),
        (lambda data: data[:-1], r"truncated: 147 of 148 bytes"),
        (lambda data: data[:40], r"truncated: 40 bytes, without a whole header"),
        (lambda data: b"", r"truncated: 0 bytes"),
        (lambda data: data + b"\n", r"too long: 149 bytes, expected 148"),
        (lambda data: data.replace(b"pay", b"PAY"), r"sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (lambda data: data.replace(b'"k"', b'"j"'), r"sha256 is .* expected"),
        (lambda data: b"x" + data, r"no artifact header"),
        (lambda data: b"".join(form.encode(form.Place("k", "b", "n"), b"", {})), r"holds k/b/n instead"),
    ],
)
def test_the_message_says_what_is_wrong(store, change, message):
    store.write("k", "a", "n", b"payload", {"from": "x"})
    raw(store, "k/a/n", change)
    (finding,) = store.verify()
    assert finding.problem
    with pytest.raises(CorruptArtifact, match=message) as caught:
        store.read("k", "a", "n")
    assert finding.problem in str(caught.value)
    assert f"'{finding.path}' is corrupt" in str(caught.value)


def test_a_fault_of_the_transfer_sets_nothing_aside(store, monkeypatch):
    store.write(*PLACE, b"payload")
    read, cuts = store.backend.read, [10]
    monkeypatch.setattr(store.backend, "read", lambda path: read(path)[: cuts.pop() if cuts else None])
    assert store.read(*PLACE) == b"payload"
    assert not cuts
    assert list(store.backend.files("set-aside")) == []


def test_an_object_that_cannot_be_set_aside_is_named_all_the_same(tmp_path):
    store = open_store(str(tmp_path))
    store.write(*PLACE, b"payload")
    raw(store, "/".join(PLACE), lambda data: data[:-1])
    (tmp_path / "set-aside").write_text("a file where a folder belongs")
    with pytest.raises(CorruptArtifact, match=r"truncated.*could not be set aside.*remove it"):
        store.read(*PLACE)


def test_an_intact_object_of_another_schema_is_left_alone(store, monkeypatch):
    monkeypatch.setattr(form, "SCHEMA", 2)
    store.write(*PLACE, b"payload")
    monkeypatch.undo()
    for method in (store.read, store.header):
        with pytest.raises(ArtifactError, match="schema 2, this version reads 1") as caught:
            method(*PLACE)
        assert not isinstance(caught.value, CorruptArtifact)
    assert store.exists(*PLACE)


def test_the_header_is_read_without_the_payload(store, monkeypatch):
    inputs = {"long": "x" * 200_000}
    store.write(*PLACE, b"payload", inputs)
    raw(store, "/".join(PLACE), lambda data: data[:-10])
    with monkeypatch.context() as patch:
        patch.setattr(store.backend, "read", None)
        assert store.header(*PLACE)["inputs"] == inputs
    for content in (b"", b"no header\n", b"[" * 100_000 + b"\n", b'{"schema":1}\n', b"x" * 2_000_000):
        store.backend.write("/".join(PLACE), [content])
        with pytest.raises(CorruptArtifact, match="is corrupt: "):
            store.header(*PLACE)
        assert store.exists(*PLACE)


# --- names, inputs and addresses


@pytest.mark.parametrize("part", ["", ".", "..", "a..b", "../x", "a/b", ".hidden", "A", "ü", "a\n", "x" * 65])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_parts_that_could_leave_the_root_are_refused(store, part, position):
    place = [*PLACE[:position], part, *PLACE[position + 1 :]]
    calls = [lambda method=method: method(*place) for method in (store.read, store.header, store.exists)]
    calls += [lambda: store.write(*place, b""), lambda: store.remove(*place), lambda: store.lock(*place)]
    calls += [lambda: store.names(*place[:2])] if position < 2 else []
    calls += [lambda: store.keys(part), lambda: store.verify(part)] if position < 1 else []
    for call in calls:
        with pytest.raises(ArtifactError, match="is not allowed: use 1 to 64"):
            call()


def test_the_kind_of_what_was_set_aside_is_taken(store):
    with pytest.raises(ArtifactError, match="'set-aside' is taken"):
        store.write("set-aside", "a", "n", b"")


@pytest.mark.parametrize("inputs", [{"a": {1, 2}}, {1: 0, "a": 0}, {"a": Path("x")}])
def test_inputs_that_are_no_plain_data_are_refused(store, inputs):
    with pytest.raises(ArtifactError, match=r"latents/0f3a/part-0\.bin' are no plain data"):
        store.write(*PLACE, b"", inputs)


def test_inputs_above_a_mebibyte_are_refused(store):
    with pytest.raises(ArtifactError, match="allowed are 1048576"):
        store.write(*PLACE, b"", {"a": "x" * (1 << 20)})


def test_a_folder_can_be_named_in_three_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("sub").write(*PLACE, b"payload")
    for url in (str(tmp_path / "sub"), f"file://{tmp_path}/sub", "./sub/"):
        assert open_store(url).read(*PLACE) == b"payload"
    assert open_store("sub").root == str(tmp_path / "sub")
    assert open_store("sub").write(*PLACE, b"").path == str(tmp_path / "sub" / "latents/0f3a/part-0.bin")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("", None, "address is empty"),
        ("nope://x", None, "unknown protocol 'nope'. Allowed: a folder"),
        ("memry://x", None, "Did you mean 'memory'"),
        ("folder", {"endpoint_url": "x"}, "takes no storage options, found endpoint_url"),
    ],
)
def test_addresses_that_cannot_be_opened(url, options, message):
    with pytest.raises(ArtifactError, match=message):
        open_store(url, storage_options=options)


@pytest.mark.parametrize(("url", "extra"), [("s3://bucket/x", "s3"), ("gs://bucket/x", "gcs")])
def test_a_missing_package_names_the_extra(url, extra):
    script = """
import sys
sys.modules["s3fs"] = sys.modules["gcsfs"] = None  # as if not installed
from bench.artifacts import ArtifactError, open_store
try:
    open_store(sys.argv[1])
except ArtifactError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=True)
    assert f"pip install 'tr0n-bench[{extra}]'" in done.stdout
