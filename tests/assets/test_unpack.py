"""Archives: what is safe is unpacked whole, what is not is refused before anything is written."""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.assets import AssetError, members
from bench.assets.unpack import unpack

ROOT = Path(__file__).parents[2]
FORMATS = ["zip", "tar", "tar.gz", "tar.xz"]
CONTENT = {"a.txt": b"one", "folder/b.bin": bytes(70_000), "folder/deep/ü.txt": b"zwei", "empty": b""}


def packed(path: Path, content, kind: str) -> Path:
    """An archive of (name, bytes or None for a folder) pairs, in order; any names, any number of times."""
    pairs = list(content.items() if isinstance(content, dict) else content)
    if kind == "zip":
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.filterwarnings("ignore", "Duplicate name")
            for name, data in pairs:
                info = zipfile.ZipInfo(name)
                info.filename = name  # ZipInfo itself would tidy it up
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, data or b"")
        return path
    with tarfile.open(path, {"tar": "w:", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind]) as archive:
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return path


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder → its bytes, None for a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(archive: Path, **limits) -> str:
    """The error's message; nothing may be written, neither inside the target nor around it."""
    before = contents(archive.parent)
    with pytest.raises(AssetError) as caught:
        unpack(archive, archive.parent / "out", **limits)
    assert contents(archive.parent) == before
    return str(caught.value)


# --- what works


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("with_folders", [False, True])
def test_all_content_is_there(tmp_path, kind, with_folders):
    pairs = list(CONTENT.items())
    if with_folders:  # before and after what they hold, and as tar writes "."
        pairs = [("./", None), ("folder/", None), *pairs, ("folder/deep/", None), ("void/", None)]
    archive = packed(tmp_path / "misnamed", pairs, kind)
    assert unpack(archive, tmp_path / "new" / "out") == tmp_path / "new" / "out"
    found = contents(tmp_path / "new" / "out")
    assert {name: data for name, data in found.items() if data is not None} == CONTENT
    folders = {name for name, data in found.items() if data is None}
    assert folders == {"folder", "folder/deep"} | ({"void"} if with_folders else set())
    assert [item.name for item in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])  # an empty .tar is only zeros
def test_an_empty_archive_makes_an_empty_folder(tmp_path, kind):
    unpack(packed(tmp_path / "archive", {}, kind), tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_modes_are_not_taken_over(tmp_path):
    with tarfile.open(tmp_path / "archive", "w") as archive:
        info = tarfile.TarInfo("program")
        info.mode = 0o4777
        archive.addfile(info)
    mode = (unpack(tmp_path / "archive", tmp_path / "out") / "program").stat().st_mode
    assert stat.S_IMODE(mode) & (stat.S_ISUID | 0o111 | 0o002) == 0


def test_a_tar_of_long_names_and_pax_headers(tmp_path):
    name = "/".join(["x" * 90] * 3)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "archive", "w:gz", format=form) as archive:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 3, 1.5
            archive.addfile(info, io.BytesIO(b"abc"))
        out = unpack(tmp_path / "archive", tmp_path / f"out-{form}")
        assert (out / name).read_bytes() == b"abc"


def test_an_empty_target_is_filled_and_a_full_one_left_alone(tmp_path):
    archive = packed(tmp_path / "archive", {"a": b"1"}, "zip")
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == {"a": b"1"}
    assert "is there already. Remove it" in refused(archive)
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", Path("/")):
        with pytest.raises(AssetError, match="is there already"):
            unpack(archive, place)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AssetError, match="is there already"):
        unpack(archive, tmp_path / "dangling")


# --- unsafe names


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute path"),
        ("//server/share", "absolute path"),
        ("../out2/evil", "'..' in its path"),
        ("folder/../../evil", "'..' in its path"),
        ("..", "'..' in its path"),
        ("C:/evil", "drive letter"),
        ("c:evil", "drive letter"),
        ("folder/D:evil", "drive letter"),
        ("..\\evil", "backslash"),
        ("\\\\server\\share", "backslash"),
        ("a\nb", "control character"),
        (".", "has no name"),
    ],
)
def test_an_unsafe_name_is_refused_wherever_it_stands(tmp_path, kind, name, reason):
    archive = packed(tmp_path / "archive", [("good", b"1"), (name, b"2"), ("last", b"3")], kind)
    message = refused(archive)
    assert repr(name) in message
    assert reason in message
    assert "Nothing was unpacked" in message


def test_a_zip_name_that_hides_behind_a_zero_byte(tmp_path):
    archive = packed(tmp_path / "archive", {"good_____evil": b"1"}, "zip")
    archive.write_bytes(archive.read_bytes().replace(b"good_____evil", b"good\0/../evil"))
    assert "control character" in refused(archive)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([("a", b"1"), ("a", b"2")], "'a' that is there twice"),
        ([("a", b"1"), ("./a", b"2")], "'./a' that is there twice"),
        ([("a", b"1"), ("A", b"2")], "only in upper and lower case"),
        ([("straße", b"1"), ("STRASSE", b"2")], "only in upper and lower case"),
        ([("\u00e9", b"1"), ("e\u0301", b"2")], "only in upper and lower case"),
        ([("x/a", b"1"), ("X/b", b"2")], "only in upper and lower case"),
        ([("a", b"1"), ("a/b", b"2")], "lies in 'a', which is a file"),
        ([("a/b", b"1"), ("a", b"2")], "is a file, and other members lie in it"),
        ([("a/", None), ("a", b"2")], "there twice"),
        ([("a", b"1"), ("a/", None)], "there twice"),
        ([("a/", None), ("a/", None)], "there twice"),
    ],
)
def test_two_members_of_one_path_are_refused(tmp_path, kind, pairs, reason):
    archive = packed(tmp_path / "archive", pairs, kind)
    assert reason in refused(archive)


GOOD = st.sampled_from(["a", "b.txt", "é", "~", "...", "..a", "-", "a b", "'$(x)"])
BAD = st.sampled_from(["..", ".", "", "A", "C:", "c:d", "x\\y", "\n"])
SAFE = st.lists(GOOD, min_size=1, max_size=3).map("/".join)
NAMES = st.lists(st.one_of(GOOD, GOOD, GOOD, BAD), min_size=1, max_size=4).map("/".join).filter(bool)


@given(
    names=st.lists(NAMES, min_size=1, max_size=4),
    kind=st.sampled_from(["zip", "tar"]),
)
@settings(max_examples=250, deadline=None, derandomize=True)
def test_whatever_the_names_nothing_appears_outside(names, kind):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        archive = packed(root / "archive", [(name, name.encode()) for name in names], kind)
        try:
            unpack(archive, root / "in" / "out")
        except AssetError:
            assert os.listdir(root) == ["archive"] or os.listdir(root / "in") == []
            return
        assert sorted(os.listdir(root)) == ["archive", "in"]
        assert os.listdir(root / "in") == ["out"]
        assert not any(".." in name.split("/") or name.startswith("/") for name in names)
        files = {name: data for name, data in contents(root / "in" / "out").items() if data is not None}
        kept = [name for name in names if not (kind == "zip" and name.endswith("/"))]
        assert sorted(files.values()) == sorted(name.encode() for name in kept)
        for path, data in files.items():
            assert os.path.normpath(data.decode()) == path


@given(names=st.lists(SAFE, min_size=1, max_size=6, unique=True), kind=st.sampled_from(FORMATS))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_safe_names_are_never_refused(names, kind):
    for one, other in itertools.permutations(names, 2):
        if other.startswith(f"{one}/"):
            return  # a file in a file
    content = {name: name.encode() for name in names}
    with tempfile.TemporaryDirectory() as place:
        out = unpack(packed(Path(place) / "archive", content, kind), Path(place) / "out")
        assert {name: data for name, data in contents(out).items() if data is not None} == content


# --- kinds of member


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "device or other special file"),
        (b"Z", "device or other special file"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind, reason):
    with tarfile.open(tmp_path / "archive", "w") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        info = tarfile.TarInfo("bad")
        info.type, info.linkname = kind, "good"
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("bad/through"))
    assert f"'bad' that is a {reason}" in refused(tmp_path / "archive")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (stat.S_IFLNK, "symbolic link"),
        (stat.S_IFCHR, "device"),
        (stat.S_IFIFO, "device"),
        (stat.S_IFSOCK, "device"),
    ],
)
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode, reason):
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        info = zipfile.ZipInfo("bad")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "/etc")
    assert f"is a {reason}" in refused(tmp_path / "archive")


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = packed(tmp_path / "archive", {"a": b"secret"}, "zip")
    data = bytearray(archive.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refused(archive)


# --- sizes


@pytest.mark.parametrize("kind", FORMATS)
def test_too_much_content_is_refused(tmp_path, kind):
    archive = packed(tmp_path / "archive", {"a": bytes(600), "b": bytes(600)}, kind)
    message = refused(archive, max_bytes=1199, max_ratio=1e9)
    assert "more than 1199 bytes (at least 1200)" in message
    assert "max_bytes" in message
    unpack(archive, tmp_path / "out", max_bytes=1200, max_ratio=1e9)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_decompression_bomb_is_refused(tmp_path, kind):
    archive = packed(tmp_path / "archive", {str(i): bytes(1 << 20) for i in range(4)}, kind)
    size = archive.stat().st_size
    message = refused(archive, max_ratio=100)
    assert f"more than 100 times its {size} bytes" in message
    unpack(archive, tmp_path / "out", max_ratio=(4 << 20) / size)


def test_the_default_ratio_is_a_thousand(tmp_path):
    archive = packed(tmp_path / "archive", {"a": bytes(20 << 20)}, "tar.xz")
    assert archive.stat().st_size * 1000 < 20 << 20
    assert "more than 1000 times" in refused(archive)


def test_a_tar_that_claims_an_exabyte_is_refused_unread(tmp_path):
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    (tmp_path / "archive").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    assert "unpacks to more than 200000000000 bytes" in refused(tmp_path / "archive")


def test_a_tar_with_a_negative_size_is_refused(tmp_path):
    info = tarfile.TarInfo("negative")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024: back to this header, for ever
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    (tmp_path / "archive").write_bytes(bytes(header) + bytes(10240))
    assert "of -1024 bytes" in refused(tmp_path / "archive")


def test_a_pax_header_that_would_fill_the_memory_is_refused(tmp_path):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "archive").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)))
    assert "a header claims 1099511627776 bytes" in refused(tmp_path / "archive")


def test_a_sparse_map_without_an_end_is_refused(tmp_path):
    with tarfile.open(tmp_path / "archive", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}
        archive.addfile(info)
    assert "is damaged" in refused(tmp_path / "archive")


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MAX_MEMBERS", 3)
    archive = packed(tmp_path / "archive", {str(i): b"" for i in range(4)}, "tar.gz")
    assert "more than 3 members" in refused(archive)


def test_overlapping_zip_members_count_each(tmp_path):
    """Many directory entries for one piece of data: small in the file, huge unpacked."""
    archive = packed(tmp_path / "archive", {"aa": bytes(100_000)}, "zip")
    data = archive.read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    entries = b"".join(entry.replace(b"aa", b"%02d" % i) for i in range(90))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 90, 90, len(entries), start, 0)
    archive.write_bytes(data[:start] + entries + tail)
    assert "more than 1000 times" in refused(archive)
    assert "is damaged" in refused(archive, max_ratio=1e9)


# --- damage


@pytest.mark.parametrize("content", [b"", b"PK", b"a text", b"\x7fELF" + bytes(600), b"BZh9" + bytes(600)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "archive.zip").write_bytes(content)
    assert "is neither a zip nor a tar" in refused(tmp_path / "archive.zip")


def test_a_missing_archive_is_named(tmp_path):
    assert "archive.zip' cannot be unpacked" in refused(tmp_path / "archive.zip")


def test_a_tar_with_a_zip_at_its_end_is_read_as_what_it_begins_with(tmp_path):
    good = packed(tmp_path / "good", {"good": b"1"}, "tar").read_bytes()
    evil = packed(tmp_path / "evil", {"evil": b"2"}, "zip").read_bytes()
    (tmp_path / "archive").write_bytes(good + evil)
    assert zipfile.is_zipfile(tmp_path / "archive")
    assert "content after tar's end mark" in refused(tmp_path / "archive")


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_cut_anywhere_is_refused(tmp_path, kind):
    whole = packed(tmp_path / "whole", CONTENT, kind).read_bytes()
    ends = {*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}
    if kind == "tar":  # what follows the end mark is only padding; 512 bytes of the mark are enough
        used = len(whole.rstrip(b"\0"))
        ends = {end for end in ends if end < used} | {used // 512 * 512, used + 1}
    for end in ends:
        (tmp_path / "archive").write_bytes(whole[:end])
        assert "Nothing was unpacked" in refused(tmp_path / "archive")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_every_flipped_bit_is_found_or_harmless(tmp_path, kind):
    content = {"a.txt": b"some text that is worth a checksum" * 3, "b/c": b"more"}
    whole = packed(tmp_path / "whole", content, kind).read_bytes()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << (position % 8)
        (tmp_path / "archive").write_bytes(data)
        try:
            out = unpack(tmp_path / "archive", tmp_path / "out")
        except AssetError:
            assert sorted(os.listdir(tmp_path)) == ["archive", "whole"]
            continue
        # names and some fields of a zip have no checksum; content has one
        assert {data for data in contents(out).values() if data} <= set(content.values())
        shutil.rmtree(out)


@given(data=st.data(), kind=st.sampled_from(FORMATS))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_garbage_gives_no_other_error(data, kind):
    with tempfile.TemporaryDirectory() as place:
        archive = packed(
            Path(place) / "archive", {"a.txt": b"text", "b/c": b"more"}, "zip" if kind == "zip" else "tar"
        )
        whole = bytearray(archive.read_bytes()[:3000])
        for _ in range(data.draw(st.integers(1, 6))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        compress = {"tar.gz": gzip.compress, "tar.xz": lzma.compress}.get(kind, bytes)
        archive.write_bytes(compress(bytes(whole)))
        try:
            unpack(archive, Path(place) / "out")
        except AssetError:
            assert os.listdir(place) == ["archive"]


def test_a_disk_that_fails_midway_leaves_nothing(tmp_path, monkeypatch):
    archive = packed(tmp_path / "archive", CONTENT, "zip")
    copy, calls = shutil.copyfileobj, []

    def full(*arguments) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        copy(*arguments)

    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert "No space left on device" in refused(archive)
    assert len(calls) == 3


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    archive = packed(tmp_path / "archive", CONTENT, "tar.gz")

    def interrupt(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path) == ["archive"]


CHILD = """
import shutil, sys, threading
from pathlib import Path
from bench.assets.unpack import unpack
copy, count = shutil.copyfileobj, []
def stop(*arguments):
    copy(*arguments)
    count.append(1)
    if len(count) == 3:
        print("midway", flush=True)
        threading.Event().wait()
shutil.copyfileobj = stop
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_process_leaves_no_folder_under_the_name(tmp_path):
    archive = packed(tmp_path / "archive", CONTENT, "tar")
    command = [sys.executable, "-c", CHILD, str(archive), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"midway\n"
        child.kill()
    left = [name for name in os.listdir(tmp_path) if name != "archive"]
    assert len(left) == 1
    assert left[0].startswith(".out.")
    unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out")["a.txt"] == b"one"
