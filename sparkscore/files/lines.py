"""The lines of a text file that fall to a piece of it, block by block, as Spark tells lines apart.

A line is never cut, and is read by the piece that it begins in: no value of the formats read here
may hold a newline, so that a file can be cut at each of them.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import SourceError, shown
from sparkscore.files.formats import compression_of
from sparkscore.files.planning import FilePiece

_MAX_BLOCK_BYTES = 4 * 2**20
"""Parsing is flat in time per byte from a quarter of it on."""
_MIN_BLOCK_BYTES = 256
_BYTES_PER_BYTE = 4
"""What a byte of text becomes in memory, about: `1,` is a double of 8 bytes."""
_SEARCHED_BYTES = 65_536
_MAX_LINE_BYTES = 64 * 2**20
_UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowInvalid, pa.ArrowNotImplementedError)
_BOM = b"\xef\xbb\xbf"
_BLANK = r"^[\x00-\x20]*$"
"""What Spark takes for no row."""
_Bytes = IO[bytes] | gzip.GzipFile | bz2.BZ2File
_UNPACKERS: Mapping[str, type[gzip.GzipFile | bz2.BZ2File]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
}


@dataclass(frozen=True)
class Lines:
    """Some lines of a file that follow each other, without those that are blank.

    Attributes:
        data: The lines, each with its newline, but the file's last line.
        texts: The same, one element a line.
        numbers: The number of each line, from 1, counted from where the piece begins.
        is_first: Whether no line of the file that is not blank comes before.
    """

    data: bytes
    texts: pa.StringArray
    numbers: np.ndarray
    is_first: bool

    def after_first(self) -> Lines:
        """All but the first line."""
        start = len(self.texts[0].as_buffer())
        return Lines(self.data[start:], self.texts.slice(1), self.numbers[1:], is_first=False)


def read_lines(piece: FilePiece, max_bytes: int) -> Iterator[Lines]:
    """The lines that begin in a piece of a file; each is in exactly one piece.

    A compressed file is read whole by the piece that begins it, and is in one piece.

    Args:
        piece: Which bytes of the file.
        max_bytes: Of memory that a block becomes when it is parsed, about.

    Raises:
        SourceError: The file is gone, cannot be unpacked, is no UTF-8, or has a line of more
            than 64 MiB.
    """
    n_bytes = min(_MAX_BLOCK_BYTES, max(_MIN_BLOCK_BYTES, max_bytes // _BYTES_PER_BYTE))
    number, is_first = 1, piece.start == 0
    with file_errors(piece.path):
        check_unchanged(piece)
        for block in _blocks(piece, n_bytes):
            n_lines, lines = _lines(block, number, is_first=is_first)
            number += n_lines
            if len(lines.texts):
                is_first = False
                yield lines


def line_number(piece: FilePiece, number: int) -> str:
    """What to call a line: its number in the file, which is counted only when it is asked for."""
    if piece.start == 0:
        return f"line {number}"
    with file_errors(piece.path):
        before = _blocks(replace(piece, start=0, end=piece.start), _MAX_BLOCK_BYTES)
        n_before = sum(_as_unix(block).count(b"\n") for block in before)
    return f"line {n_before + number}"


def check_unchanged(piece: FilePiece) -> None:
    """Refuse a file that is not as long as when it was planned: it holds other rows now.

    Raises:
        SourceError: It has another size.
    """
    n_bytes = Path(piece.path).stat().st_size
    if piece.file_bytes not in (None, n_bytes):
        raise unreadable(
            piece.path, f"it has {n_bytes} bytes, and had {piece.file_bytes} when it was planned"
        )


def unreadable(path: str, reason: object) -> SourceError:
    """The error for a file that cannot be read at all."""
    return SourceError(
        f"data file {shown(path)} cannot be read: {reason}; nothing was written; restore the file"
    )


@contextmanager
def file_errors(path: str) -> Iterator[None]:
    """Errors of opening, unpacking or decoding a file as one of ours."""
    try:
        yield
    except _UNREADABLE as exc:
        raise unreadable(path, exc) from exc


def _blocks(piece: FilePiece, n_bytes: int) -> Iterator[bytes]:
    """Whole lines, about `n_bytes` at once."""
    unpacker = _UNPACKERS.get(compression_of(piece.path))
    with _opened(piece.path, unpacker) as file:
        left = None
        if unpacker is None:
            start = _line_start(file, piece.start)
            left = max(0, _line_start(file, piece.end) - start)
            file.seek(start)
        elif piece.start > 0:
            return
        kept = b""
        while True:
            data = file.read(n_bytes if left is None else min(n_bytes, left))
            if left is not None:
                left -= len(data)
            if not data:
                break
            kept += data
            cut = _last_line_end(kept)
            if cut:
                yield kept[:cut]
                kept = kept[cut:]
            elif len(kept) > _MAX_LINE_BYTES:
                raise unreadable(piece.path, f"a line has more than {_MAX_LINE_BYTES} bytes")
        if kept:
            yield kept


def _opened(path: str, unpacker: type[gzip.GzipFile | bz2.BZ2File] | None) -> _Bytes:
    return Path(path).open("rb") if unpacker is None else unpacker(path)


def _line_start(file: _Bytes, position: int) -> int:
    """Where the first line begins that begins at `position` or after it."""
    if position == 0:
        return 0
    start = position - 1
    file.seek(start)
    while data := file.read(_SEARCHED_BYTES):
        found = data.find(b"\n")
        if found >= 0:
            return start + found + 1
        start += len(data)
    return start


def _last_line_end(data: bytes) -> int:
    """Where the last whole line ends; 0 where there is none."""
    end = data.rfind(b"\n") + 1
    # A lone carriage return ends a line too; the last byte may be half of a pair.
    return end or data.rfind(b"\r", 0, len(data) - 1) + 1


def _as_unix(data: bytes) -> bytes:
    if b"\r" not in data:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _lines(block: bytes, number: int, *, is_first: bool) -> tuple[int, Lines]:
    """How many lines a block has, and those of them that are not blank."""
    data = _as_unix(block)
    if is_first and number == 1:
        data = data.removeprefix(_BOM)
    texts = _split(data)
    texts.validate(full=True)  # UTF-8, or Spark would replace what is not.
    n_lines = len(texts)
    numbers = np.arange(number, number + n_lines)
    blank = pc.match_substring_regex(texts, _BLANK)
    if pc.any(blank, min_count=0).as_py():
        kept = pc.invert(blank)
        texts, numbers = texts.filter(kept), numbers[kept.to_numpy(zero_copy_only=False)]
        data = "".join(texts.to_pylist()).encode()
    return n_lines, Lines(data, texts, numbers, is_first)


def _split(data: bytes) -> pa.StringArray:
    """One element a line, over the bytes themselves."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    if not len(ends) or ends[-1] < len(data):
        ends = np.append(ends, len(data))
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
