from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from sparkscore.errors import PackageDigestError, PackageFormatError
from sparkscore.package import compute_seal, copy_sealed, pack, seal, unpack, verify
from sparkscore.package.archive import pack_into
from sparkscore.package.manifest import MANIFEST


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}", "utf-8")
    (folder / "data" / "model.bin").write_bytes(b"\x00\x01\x02")
    return folder


def test_digest_is_what_sha256sum_would_give(folder: Path) -> None:
    lines = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("MLmodel", "data/model.bin")
    )
    assert seal(folder).digest == hashlib.sha256(lines.encode()).hexdigest()


def test_seal_written_computed_and_verified_are_one(folder: Path) -> None:
    assert compute_seal(folder) == seal(folder) == verify(folder)
    raw = json.loads((folder / MANIFEST).read_text("utf-8"))
    assert raw["format"] == 1
    assert raw["files"]["data/model.bin"]["n_bytes"] == 3


def test_file_that_mlflow_adds_on_download_does_not_matter(folder: Path) -> None:
    sealed = seal(folder)
    (folder / "registered_model_meta").write_text("name: m", "utf-8")
    assert verify(folder) == sealed


def test_changed_missing_and_extra_files_are_named(folder: Path) -> None:
    seal(folder)
    model = folder / "data" / "model.bin"
    model.write_bytes(b"\x00\x01\x03")
    with pytest.raises(PackageDigestError, match=r"data/model\.bin.*expected sha256.*found sha256"):
        verify(folder)
    model.unlink()
    with pytest.raises(PackageDigestError, match=r"data/model\.bin.*found no such file"):
        verify(folder)
    model.write_bytes(b"\x00\x01\x02")
    (folder / "extra.py").write_text("", "utf-8")
    with pytest.raises(PackageDigestError, match=r"extra\.py.*expected no such file"):
        verify(folder)


def test_manifest_that_was_edited_is_found(folder: Path) -> None:
    seal(folder)
    raw = json.loads((folder / MANIFEST).read_text("utf-8"))
    raw["files"]["MLmodel"]["sha256"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(raw), "utf-8")
    with pytest.raises(PackageDigestError, match="not that of its own list"):
        verify(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "files": 3}'])
def test_broken_manifest_is_a_format_error(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text, "utf-8")
    with pytest.raises(PackageFormatError, match=MANIFEST):
        verify(folder)


def test_package_without_a_manifest_does_not_verify(folder: Path) -> None:
    with pytest.raises(PackageFormatError, match="has no sparkscore"):
        verify(folder)


@pytest.mark.parametrize("target", ["MLmodel", "/etc/passwd", "nowhere"])
def test_links_are_never_sealed(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(PackageFormatError, match="'link'"):
        compute_seal(folder)


def test_copy_is_sealed_whether_the_source_was_or_not(folder: Path, tmp_path: Path) -> None:
    first = copy_sealed(folder, tmp_path / "a")
    assert not (folder / MANIFEST).exists()
    assert copy_sealed(tmp_path / "a", tmp_path / "b") == first == verify(tmp_path / "b")


def test_copy_of_changed_bytes_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    seal(folder)
    (folder / "MLmodel").write_text("other", "utf-8")
    with pytest.raises(PackageDigestError):
        copy_sealed(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    with pytest.raises(PackageFormatError, match="exists"):
        copy_sealed(folder, folder)


def test_packed_package_is_deterministic_and_comes_back_whole(folder: Path, tmp_path: Path) -> None:
    sealed = seal(folder)
    packed = pack(folder)
    (folder / "MLmodel").touch()
    (folder / "MLmodel").chmod(0o644)
    assert pack(folder) == packed
    unpack(io.BytesIO(packed), tmp_path / "node" / "p")
    assert verify(tmp_path / "node" / "p") == sealed


def test_packing_and_unpacking_hold_no_whole_file_in_memory(folder: Path, tmp_path: Path) -> None:
    n_bytes = 32 * 2**20
    with (folder / "weights.bin").open("wb") as weights:
        weights.truncate(n_bytes)
    seal(folder)
    tracemalloc.start()
    try:
        with (tmp_path / "packed.tar").open("w+b") as packed:
            pack_into(folder, packed)
            unpack(packed, tmp_path / "p")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n_bytes / 4
    assert verify(tmp_path / "p") == verify(folder)


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (archive((member("../up"), b"x")), "leads out"),
        (archive((member("/abs"), b"x")), "leads out"),
        (archive((member("a\\..\\b"), b"x")), "leads out"),
        (archive((member("."), b"x")), "leads out"),
        (archive((member("l", tarfile.SYMTYPE, "/etc"), b"")), "no regular file"),
        (archive((member("h", tarfile.LNKTYPE, "a"), b"")), "no regular file"),
        (archive((member("d", tarfile.CHRTYPE), b"")), "no regular file"),
        (archive((member("p", tarfile.FIFOTYPE), b"")), "no regular file"),
        (archive((member("a"), b"1"), (member("a"), b"2")), "cannot be unpacked"),
        (archive((member("a"), b"1" * 2000))[:1024], "cannot be unpacked|claims"),
        (b"no tar at all", "cannot be unpacked"),
    ],
)
def test_hostile_archive_leaves_nothing(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(PackageFormatError, match=message):
        unpack(io.BytesIO(data), tmp_path / "p")
    assert list(tmp_path.iterdir()) == []
