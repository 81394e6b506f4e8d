"""A package as one stream of bytes, to travel to Spark workers, and back into a folder."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sparkscore.errors import PackageFormatError, shown
from sparkscore.package.manifest import MANIFEST, compute_seal

# Model files are compressed already, or read at once from memory: a plain tar packs and unpacks
# at the speed of the disk.
_MAX_FILES = 100_000


def pack(folder: Path) -> bytes:
    """The package in `folder` as an uncompressed tar; equal files give equal bytes.

    Raises:
        PackageFormatError: A link or a device lies in the folder.
    """
    buffer = io.BytesIO()
    pack_into(folder, buffer)
    return buffer.getvalue()


def pack_into(folder: Path, file: BinaryIO) -> None:
    """Write what `pack` gives to `file`; no more than a block of it is in memory.

    Raises:
        PackageFormatError: A link or a device lies in the folder.
    """
    paths = list(compute_seal(folder).files)
    if (folder / MANIFEST).is_file():
        paths.append(MANIFEST)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            member = tarfile.TarInfo(path)
            member.size = (folder / path).stat().st_size
            member.mode = 0o600
            with (folder / path).open("rb") as content:
                tar.addfile(member, content)


def unpack(packed: BinaryIO, into: Path) -> None:
    """Write the files of a packed package into the new folder `into`.

    No more than a block of it is in memory. A plain tar cannot hold more bytes than it has, so a
    bomb has nowhere to hide. The bytes are not yet trusted: call `verify` on the folder.

    Raises:
        PackageFormatError: `into` exists, the data is no tar, or a member is no regular file or
            leads out of the folder; nothing is left behind.
    """
    if into.exists():
        raise PackageFormatError(f"{into} exists; a package is unpacked into a new folder only")
    try:
        n_bytes = packed.seek(0, io.SEEK_END)
        packed.seek(0)
        with tarfile.open(fileobj=packed, mode="r:") as tar:
            members = tar.getmembers()
            for member in members:
                _check_member(member, n_bytes)
            if len(members) > _MAX_FILES:
                raise PackageFormatError(f"the archive holds more than {_MAX_FILES} files")
            _write_members(tar, members, into)
    except (tarfile.TarError, OSError, EOFError) as exc:
        shutil.rmtree(into, ignore_errors=True)
        raise PackageFormatError(f"the packed package cannot be unpacked: {exc}") from exc


def _check_member(member: tarfile.TarInfo, max_bytes: int) -> None:
    path = PurePosixPath(member.name)
    if not member.isreg() or member.issparse():
        raise PackageFormatError(f"archive member {shown(member.name)} is no regular file")
    if path.is_absolute() or ".." in path.parts or path == PurePosixPath() or "\\" in member.name:
        raise PackageFormatError(f"archive member {shown(member.name)} leads out of the folder")
    if member.size > max_bytes:
        raise PackageFormatError(
            f"archive member {shown(member.name)} claims {member.size} bytes of {max_bytes}"
        )


def _write_members(tar: tarfile.TarFile, members: list[tarfile.TarInfo], into: Path) -> None:
    into.mkdir(mode=0o700, parents=True)
    for member in members:
        target = into / member.name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        source = tar.extractfile(member)
        assert source is not None, "regular members have content"
        # "x" refuses a second member of the same name.
        with source, target.open("xb") as file:
            shutil.copyfileobj(source, file)
