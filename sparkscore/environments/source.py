"""sparkscore's own source as one zip: for executors that lack it, and for environments."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from zipimport import zipimporter

import sparkscore
from sparkscore.errors import EnvironmentBuildError


def zipped_source(source: Path) -> bytes:
    """The .py files of a package's folder as a zip; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(source.rglob("*.py")):
            entry = zipfile.ZipInfo(path.relative_to(source.parent).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def place_source(folder: Path) -> Path:
    """A zip in `folder` with sparkscore as this process has it, named by its digest.

    Raises:
        EnvironmentBuildError: This process runs from something else than files or a zip.
    """
    source = Path(sparkscore.__file__).parent
    loader = sparkscore.__loader__
    if source.is_dir():
        zipped = zipped_source(source)
    elif isinstance(loader, zipimporter):
        zipped = Path(loader.archive).read_bytes()
    else:
        raise EnvironmentBuildError(f"sparkscore at {source} can be sent to no environment")
    path = folder / f"sparkscore-{hashlib.sha256(zipped).hexdigest()[:16]}.zip"
    if not path.is_file():
        temporary = path.with_suffix(".part")
        temporary.write_bytes(zipped)
        temporary.rename(path)
    return path
