"""Weight files: plain ones load, ones that would run code do not unless trusted by hash."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import zipfile

import pytest
import torch

from bench.assets.pickles import load_torch_file
from bench.errors import WeightError

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "steps": [1, 2], "about": {"name": "x", "half": None}}

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


class Evil:
    """Makes a folder when unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


FORMS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "zip-4": {"pickle_protocol": 4},
    "legacy-4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}


def saved(path, content, form: str):
    torch.save(content, path, **FORMS[form])
    return path


@pytest.fixture(params=list(FORMS))
def evil(request, tmp_path):
    """A weight file with a tensor and something that makes ``marker`` when loaded; and the marker."""
    marker = tmp_path / "marker"
    content = {"weight": torch.zeros(2), "evil": Evil(marker)}
    return saved(tmp_path / "model.pt", content, request.param), marker


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("trust", [False, True])
def test_plain_weights_load_trusted_or_not(tmp_path, form, trust):
    path = saved(tmp_path / "model.pt", STATE, form)
    for given in (sha256(path), sha256(path).upper()):
        loaded = load_torch_file(path, trust=trust, sha256=given)
        assert torch.equal(loaded.pop("weight"), STATE["weight"])
        assert loaded == {key: value for key, value in STATE.items() if key != "weight"}
    assert load_torch_file(str(path)).keys() == STATE.keys()


def test_code_is_refused_and_does_not_run(evil):
    path, marker = evil
    for given in (None, sha256(path)):
        with pytest.raises(WeightError) as caught:
            load_torch_file(path, sha256=given)
        message = str(caught.value)
        assert f"weight file '{path}' cannot be loaded as plain weights: it needs" in message
        assert "a pickle can run any code" in message
        assert "'trust: true' in the suite and give the matching 'sha256'" in message
    assert not marker.exists()


def test_the_needed_name_is_told(tmp_path):
    path = saved(tmp_path / "model.pt", Evil(tmp_path / "marker"), "zip")
    with pytest.raises(WeightError, match=r"it needs '(posix|nt)\.mkdir'"):
        load_torch_file(path)


def test_trust_without_a_hash_is_refused_with_the_found_one(evil):
    path, marker = evil
    with pytest.raises(WeightError, match=f"trust needs the file's sha256.*is {sha256(path)}"):
        load_torch_file(path, trust=True)
    assert not marker.exists()


@pytest.mark.parametrize("trust", [False, True])
def test_another_hash_is_refused_with_both(evil, trust):
    path, marker = evil
    other = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(WeightError, match=f"sha256 is {sha256(path)}, expected {other}"):
        load_torch_file(path, trust=trust, sha256=other)
    assert not marker.exists()


@pytest.mark.parametrize("given", ["", "6726825d", "x" * 64, "0" * 65])
def test_what_is_no_hash_is_refused(evil, given):
    path, marker = evil
    with pytest.raises(WeightError, match="expected 64 hex digits"):
        load_torch_file(path, trust=True, sha256=given)
    assert not marker.exists()


def test_only_trust_and_the_hash_run_code(evil):
    path, marker = evil
    loaded = load_torch_file(path, trust=True, sha256=sha256(path))
    assert marker.is_dir()
    assert torch.equal(loaded["weight"], torch.zeros(2))


def test_environment_variables_of_torch_do_not_open_the_door(evil, monkeypatch):
    path, marker = evil
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(WeightError, match="cannot be loaded as plain weights"):
        load_torch_file(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_bare_pickle_is_refused_even_trusted(tmp_path, protocol):
    """torch.load would run it before it finds that torch did not write it."""
    path, marker = tmp_path / "model.pkl", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Evil(marker), protocol))
    for trust in (False, True):
        with pytest.raises(WeightError, match=r"is not a file that torch\.save wrote"):
            load_torch_file(path, trust=trust, sha256=sha256(path))
    assert not marker.exists()


def test_a_module_needs_code_and_loads_trusted(tmp_path):
    path = saved(tmp_path / "model.pt", torch.nn.Linear(2, 1), "zip")
    with pytest.raises(WeightError, match=r"it needs 'torch\.nn\.modules\.linear\.Linear'"):
        load_torch_file(path)
    assert isinstance(load_torch_file(path, trust=True, sha256=sha256(path)), torch.nn.Linear)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_counts_as_code(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), path)
    with pytest.raises(WeightError, match="it needs TorchScript"):
        load_torch_file(path)
    loaded = load_torch_file(path, trust=True, sha256=sha256(path))
    assert loaded.state_dict()["weight"].shape == (1, 2)


def test_trusted_code_that_fails_is_named(tmp_path):
    path = saved(tmp_path / "model.pt", Evil(tmp_path / "no" / "marker"), "zip")
    with pytest.raises(WeightError, match="is trusted but cannot be loaded"):
        load_torch_file(path, trust=True, sha256=sha256(path))


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("trust", [False, True])
def test_a_file_cut_anywhere_is_named_as_such(tmp_path, form, trust):
    whole = saved(tmp_path / "whole.pt", STATE, form).read_bytes()
    path = tmp_path / "model.pt"
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(
            WeightError, match=r"cut short or damaged|is empty|is not a file that torch\.save"
        ):
            load_torch_file(path, trust=trust, sha256=sha256(path))


def test_an_evil_file_cut_anywhere_does_not_run_untrusted(evil):
    path, marker = evil
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(WeightError):
            load_torch_file(path)
    assert not marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_damaged_file_gives_no_other_error(tmp_path, form):
    whole = saved(tmp_path / "whole.pt", STATE, form).read_bytes()
    path = tmp_path / "model.pt"
    for position in range(0, len(whole), 11):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            load_torch_file(path)
        except WeightError:
            continue


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"not weights",
        b"\x80",
        b"\x80\x02.",
        b"PK\x03\x04",
        gzip.compress(b"", mtime=0),
        bytes(5000),
    ],
)
def test_what_is_not_torchs_is_refused(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(
        WeightError, match=r"is empty|is not a file that torch\.save wrote|cut short or damaged"
    ):
        load_torch_file(path)


def test_another_zip_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(WeightError, match=r"is not a file that torch\.save wrote"):
        load_torch_file(path)


def test_a_safetensors_file_is_not_torchs(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightError, match=r"is not a file that torch\.save wrote"):
        load_torch_file(tmp_path / "model.safetensors")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(WeightError, match=r"absent\.pt' is missing"):
        load_torch_file(tmp_path / "absent.pt")
    with pytest.raises(WeightError, match="cannot be read"):
        load_torch_file(tmp_path)
