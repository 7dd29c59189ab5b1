"""Weight files written by torch.save: read without running code, unless the suite vouches for the file."""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import re
import zipfile
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from bench.errors import WeightError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # first pickle of torch's older format
NUM_PICKLES = 4  # of the older format, before its raw data: magic number, version, system, content

Form = Literal["zip", "torchscript", "legacy"]


def load_torch_file(path: Path | str, *, trust: bool = False, sha256: str | None = None) -> Any:
    """What torch.save wrote, its tensors on the CPU.

    A file that needs more than tensors and plain containers (or TorchScript) is code: it is loaded only
    with ``trust`` and with the ``sha256`` that it has. A ``sha256`` is always compared where given.

    Raises WeightError where the file is missing, not torch's, cut short or damaged, where its hash
    differs, where ``trust`` comes without a hash, and where it needs code and is not trusted.
    """
    path = Path(path)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise WeightError(f"weight file '{path}': sha256 is {sha256!r}, expected 64 hex digits.")
    try:
        with path.open("rb") as file:  # one file from hash to end, whatever is renamed meanwhile
            _check_hash(path, file, trust, sha256)
            return _load(path, file, trust)
    except FileNotFoundError:
        raise WeightError(
            f"weight file '{path}' is missing. Correct the path or put the file there."
        ) from None
    except OSError as error:
        raise WeightError(f"weight file '{path}' cannot be read: {error}.") from error


def load_pickle(path: Path | str, *, trust: bool, sha256: str | None) -> Any:
    """The object in a plain pickle that is code, such as the official StyleGAN networks.

    It is loaded only with ``trust`` and with the ``sha256`` that it has. Raises WeightError as
    :func:`load_torch_file` does.
    """
    path = Path(path)
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise WeightError(f"weight file '{path}': sha256 is {sha256!r}, expected 64 hex digits.")
    try:
        with path.open("rb") as file:
            _check_hash(path, file, trust, sha256)
            if not trust:
                raise WeightError(
                    f"weight file '{path}' is a pickle that holds code, and can run any. If you trust its "
                    "publisher: say 'trust: true' in the suite and give the matching 'sha256'."
                )
            file.seek(0)
            return pickle.load(file)
    except FileNotFoundError:
        raise WeightError(
            f"weight file '{path}' is missing. Correct the path or put the file there."
        ) from None
    except OSError as error:
        raise WeightError(f"weight file '{path}' cannot be read: {error}.") from error
    except WeightError:
        raise
    except Exception as error:
        raise WeightError(
            f"weight file '{path}' is trusted but cannot be loaded: {type(error).__name__}: "
            f"{_first_line(error)}."
        ) from error


def _check_hash(path: Path, file: BufferedReader, trust: bool, sha256: str | None) -> None:
    if not trust and sha256 is None:
        return
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is None:
        raise WeightError(
            f"weight file '{path}': trust needs the file's sha256, as a pickle can run code. Its sha256 is "
            f"{found}; where that is the one that its publisher states, give it beside 'trust: true'."
        )
    if found != sha256.lower():
        raise WeightError(
            f"weight file '{path}' is corrupt or another version: sha256 is {found}, expected {sha256}. "
            "Restore the file or correct the expected hash."
        )


def _load(path: Path, file: BufferedReader, trust: bool) -> Any:
    form = _form(path, file)
    needed = "TorchScript"
    if form != "torchscript":
        try:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            if not isinstance(error, pickle.UnpicklingError) or not _pickles_are_whole(file, form):
                raise WeightError(
                    f"weight file '{path}' is cut short or damaged: {_first_line(error)}. Fetch it anew."
                ) from error
            name = re.search(r"GLOBAL (\S+)", str(error))
            needed = f"'{name[1]}'" if name else "more than tensors and plain containers"
    if not trust:
        raise WeightError(
            f"weight file '{path}' cannot be loaded as plain weights: it needs {needed}, and a pickle can "
            "run any code. Use a plain state dict or a .safetensors file. If you trust its publisher: "
            "say 'trust: true' in the suite and give the matching 'sha256'."
        )
    file.seek(0)
    try:
        if form == "torchscript":
            return torch.jit.load(file, map_location="cpu")
        return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        raise WeightError(
            f"weight file '{path}' is trusted but cannot be loaded: {_first_line(error)}. It may need a "
            "package that is not installed."
        ) from error


def _form(path: Path, file: BufferedReader) -> Form:
    """Which of torch's formats; looks only. torch.load itself would unpickle any pickle to find out."""
    file.seek(0)
    start = file.read(4)
    if start == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(file) as archive:
                names = {name.rpartition("/")[2] for name in archive.namelist()}
        except Exception as error:  # zipfile raises of many types where bytes are damaged
            raise WeightError(
                f"weight file '{path}' is cut short or damaged: {error}. Fetch it anew."
            ) from error
        if "constants.pkl" in names:
            return "torchscript"
        if "data.pkl" in names:
            return "zip"
    else:
        file.seek(0)
        try:
            if any(argument == MAGIC_NUMBER for _, argument, _ in islice(pickletools.genops(file), 3)):
                return "legacy"
        except Exception:  # whatever pickletools meets in bytes that are no pickle
            pass
    what = "is empty" if not start else "is not a file that torch.save wrote"
    raise WeightError(
        f"weight file '{path}' {what}. Allowed: what torch.save writes, as .pt and .pth files do. "
        "Correct the path or fetch the file anew."
    )


def _pickles_are_whole(file: BufferedReader, form: Form) -> bool:
    """Whether the pickled part is well-formed, so that only its content can have been refused."""
    try:
        file.seek(0)
        if form == "legacy":
            for _ in range(NUM_PICKLES):
                for _ in pickletools.genops(file):
                    pass
            return True
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
            with archive.open(name) as content:
                for _ in pickletools.genops(content):
                    pass
        return True
    except Exception:  # whatever zipfile and pickletools meet in damaged bytes
        return False


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
