"""Seals: the sha256 of every file of a package, and one digest over all of them.

`sparkscore.manifest.json` holds `{"format": 1, "digest": ..., "files": {path: {"sha256": ...,
"n_bytes": ...}}}`. The digest is the sha256 of the lines `<sha256>  <path>`, sorted by path,
which is what `sha256sum` prints, so that anyone can check it without this program.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sparkscore.errors import PackageDigestError, PackageFormatError, listed, shown

MANIFEST = "sparkscore.manifest.json"
SIGNING = "sparkscore.signing.json"
"""Who vouches for the digest; see `package.signing`."""

# MLflow adds the last file when it downloads a registered version.
_UNSEALED = (MANIFEST, SIGNING, "registered_model_meta")
_FORMAT = 1
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FileSeal:
    """One file's digest (hex) and size."""

    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class Seal:
    """The package digest (hex sha256) and what it was made of, by `/`-separated path."""

    digest: str
    files: Mapping[str, FileSeal]


def seal(folder: Path) -> Seal:
    """Write the manifest of the package in `folder`; an older one is replaced.

    Raises:
        PackageFormatError: A link or a device lies in the folder.
    """
    made = compute_seal(folder)
    files = {path: {"sha256": f.sha256, "n_bytes": f.n_bytes} for path, f in made.files.items()}
    text = json.dumps({"format": _FORMAT, "digest": made.digest, "files": files}, indent=1)
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return made


def compute_seal(folder: Path) -> Seal:
    """The seal of the files as they are now; nothing is written.

    Raises:
        PackageFormatError: A link or a device lies in the folder, or a file cannot be read.
    """
    return seal_of({path: _hash_path(folder / path) for path in _walk(folder)})


def is_sealed(path: str) -> bool:
    """Whether the file of this path, below the package's folder, is one that seals cover."""
    return path not in _UNSEALED


def hash_file(file: BinaryIO) -> FileSeal:
    """Digest and size of an open file, which is read to its end."""
    digest, n_bytes = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
        n_bytes += len(chunk)
    return FileSeal(digest.hexdigest(), n_bytes)


def seal_of(files: Mapping[str, FileSeal]) -> Seal:
    """The seal of a package whose files, all that are covered, are known by their digests."""
    return Seal(_digest(files), files)


def read_seal(folder: Path) -> Seal | None:
    """What the manifest in `folder` says, unchecked against the files; None without a manifest.

    Raises:
        PackageFormatError: The manifest is broken or of a newer format.
        PackageDigestError: Its digest is not that of its own list.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != _FORMAT:
            raise PackageFormatError(
                f"{path} has the format {shown(raw['format'])}; this release reads {_FORMAT}"
            )
        files = {
            str(name): FileSeal(str(node["sha256"]), int(node["n_bytes"]))
            for name, node in raw["files"].items()
        }
        digest = str(raw["digest"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        if isinstance(exc, PackageFormatError):
            raise
        raise PackageFormatError(f"{path} does not parse: {exc!r}; seal the package anew") from exc
    if digest != _digest(files):
        raise PackageDigestError(
            f"{path}: its digest {digest} is not that of its own list ({_digest(files)}); "
            "fetch the version again"
        )
    return Seal(digest, files)


def verify(folder: Path) -> Seal:
    """The seal of a package, after every byte was compared with it.

    Raises:
        PackageFormatError: There is no manifest, or it is broken.
        PackageDigestError: A file is missing, extra or changed; names it.
    """
    expected = read_seal(folder)
    if expected is None:
        raise PackageFormatError(
            f"{folder} has no {MANIFEST}; register the package, or seal it, before it is used"
        )
    found = compute_seal(folder)
    for path in sorted(expected.files.keys() | found.files.keys()):
        want, have = expected.files.get(path), found.files.get(path)
        if want != have:
            raise PackageDigestError(
                f"{folder}: file {path} differs from its seal: expected {_described(want)}, "
                f"found {_described(have)}; fetch the version again"
            )
    return expected


def copy_sealed(folder: Path, into: Path) -> Seal:
    """Copy a package to the new folder `into`, sealed: verified if it was, else sealed there.

    Raises:
        PackageFormatError: A link or device lies in `folder`, or `into` exists.
        PackageDigestError: The bytes are not the ones that were sealed; `into` is removed.
    """
    if into.exists():
        raise PackageFormatError(f"{into} exists; a package is copied to a new folder only")
    paths = list(_walk(folder))
    is_sealed = (folder / MANIFEST).exists()
    if is_sealed:
        paths += [name for name in (MANIFEST, SIGNING) if (folder / name).exists()]
    try:
        for path in paths:
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, target, follow_symlinks=False)
        return verify(into) if is_sealed else seal(into)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _digest(files: Mapping[str, FileSeal]) -> str:
    lines = "".join(f"{files[path].sha256}  {path}\n" for path in sorted(files))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _described(file: FileSeal | None) -> str:
    return "no such file" if file is None else f"sha256 {file.sha256} ({file.n_bytes} bytes)"


def _walk(folder: Path) -> Iterator[str]:
    """Paths of the sealed files below `folder`, links and devices refused."""
    bad: list[str] = []
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) and is_sealed(relative):
                found.append(relative)
            elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                bad.append(relative)
    if bad:
        raise PackageFormatError(
            f"{folder} holds links, pipes or devices: {listed(sorted(bad))}; "
            "a package has regular files only"
        )
    return iter(sorted(found))


def _hash_path(path: Path) -> FileSeal:
    try:
        with path.open("rb") as file:
            return hash_file(file)
    except OSError as exc:
        raise PackageFormatError(f"{path} cannot be read: {exc.strerror}") from exc
