"""A missing public file: one message with place, source, size and hash, and a check that works."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file

from bench.assets.missing import Published, missing_asset, require_file
from bench.assets.state import check_state, read_state
from bench.errors import DataError, WeightError
from bench.identity import weight_hashes

CONTENT = b"weights of a network"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KNOWN = Published(what="a network", source="https://example.org/net", size="20 bytes", sha256=SHA256)
UNKNOWN = Published(what="a network", source="https://example.org/net")


def verdict(message: str) -> subprocess.CompletedProcess:
    """What the message's command says."""
    command = re.search(r"Verify: (.*)\.$", message)[1]
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True)


def test_the_message_says_all_that_is_needed(tmp_path):
    first, second = tmp_path / "net.pth", tmp_path / "cache" / "net.pth"
    text = str(missing_asset(KNOWN, [first, second]))
    for part in (f"'{first}' is missing", f"'{second}'", "a network", KNOWN.source, "20 bytes", SHA256):
        assert part in text


def test_its_command_tells_the_right_file_from_a_wrong_one(tmp_path):
    place = tmp_path / "it's a net.pth"  # a quote and spaces are in the name
    text = str(missing_asset(KNOWN, place))
    place.write_bytes(CONTENT)
    assert verdict(text).returncode == 0
    place.write_bytes(CONTENT + b"!")
    assert verdict(text).returncode != 0


def test_an_unknown_hash_is_said_and_printed(tmp_path):
    place = tmp_path / "net.pth"
    text = str(missing_asset(UNKNOWN, place))
    assert "size: not known; sha256: not known" in text
    place.write_bytes(CONTENT)
    assert verdict(text).stdout.startswith(SHA256)


def test_an_asset_of_the_lock_file_names_the_command_that_fetches_it(tmp_path):
    text = str(missing_asset(Published.locked("openai-clip-vit-b-32"), tmp_path / "ViT-B-32.pt"))
    assert "tr0n-bench assets fetch openai-clip-vit-b-32" in text
    assert "353976522 bytes" in text
    unknown = Published.locked("biggan-deep-512")
    text = str(missing_asset(unknown, tmp_path / "pytorch_model.bin"))
    assert "tr0n-bench assets fetch biggan-deep-512 --allow-unknown-hash" in text


def test_require_file_gives_the_path_or_the_error_asked_for(tmp_path):
    path = tmp_path / "data.json"
    with pytest.raises(DataError, match="correct 'annotations'"):
        require_file(path, KNOWN, field="annotations", error=DataError)
    path.write_text("{}")
    assert require_file(str(path), KNOWN) == path


@dataclass(frozen=True)
class Component:
    weights: str
    vocabulary: str | None = None
    model: str = "no model of the zoo"

    @property
    def assets(self):
        return {"weights": KNOWN, "vocabulary": None}


def test_every_listed_file_is_hashed_and_a_missing_one_told_with_its_source(tmp_path):
    first, second = tmp_path / "a" / "net.pth", tmp_path / "b" / "net.pth"
    for path in (first, second):
        path.parent.mkdir()
        path.write_bytes(str(path.parent.name).encode())
    hashes = weight_hashes(Component(str(first), str(second)))  # one file name, two files
    assert set(hashes.values()) == {hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"b").hexdigest()}
    with pytest.raises(WeightError, match=r"gone\.pth' is missing: a network\. Get it: https://example"):
        weight_hashes(Component(str(tmp_path / "gone.pth")))


STATE = {"first.weight": torch.arange(6.0).reshape(2, 3), "first.bias": torch.zeros(2)}


@pytest.fixture(params=["net.safetensors", "net.pth"])
def saved(request, tmp_path):
    path = tmp_path / request.param
    (save_file if path.suffix == ".safetensors" else torch.save)(STATE, path)
    return path


def test_a_state_dict_is_read_whole(saved):
    sha256 = hashlib.sha256(saved.read_bytes()).hexdigest()
    state = read_state(saved, sha256=sha256.upper())
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)
    check_state(state, STATE, what="the network", path=saved)
    with pytest.raises(WeightError, match=f"sha256 is {sha256}, expected {'0' * 64}"):
        read_state(saved, sha256="0" * 64)


def test_a_damaged_or_missing_state_dict_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:40])
    with pytest.raises(WeightError, match=r"damaged|not a readable"):
        read_state(saved)
    saved.unlink()
    with pytest.raises(WeightError, match="is missing"):
        read_state(saved)
    with pytest.raises(WeightError, match=KNOWN.source):
        read_state(saved, published=KNOWN)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "holds a list"), ({"epoch": 3, **STATE}, "'epoch' holds a int, expected a tensor")],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightError, match=message):
        read_state(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({**STATE, "second.bias": (2,)}, "missing key 'second.bias'"),
        ({"first.bias": (2,)}, "unexpected key 'first.weight'"),
        ({**STATE, "first.weight": (3, 2)}, r"'first.weight' has shape \(2, 3\), expected \(3, 2\)"),
        ({f"k{i}": (1,) for i in range(9)}, "and 6 more"),
    ],
)
def test_keys_that_do_not_fit_are_named(expected, message):
    with pytest.raises(WeightError, match=message):
        check_state(STATE, expected, what="the network", path="net.pth")
