from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.errors import SourceError
from sparkscore.files.lines import line_number, read_lines
from sparkscore.files.planning import FilePiece

TEXTS = st.text(st.sampled_from("ab\n\r ,é"), max_size=80)


def as_lines(text: str) -> list[str]:
    """The lines that Spark would see, which splits at all three ends and passes over blanks."""
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in plain.split("\n") if line.strip(" ")]


def read(piece: FilePiece, max_bytes: int = 1) -> list[tuple[str, str]]:
    """Number and text of each line of a piece."""
    return [
        (line_number(piece, int(number)), line.removesuffix("\n"))
        for lines in read_lines(piece, max_bytes)
        for number, line in zip(lines.numbers, lines.texts.to_pylist(), strict=True)
    ]


@settings(deadline=None, database=None, derandomize=True, max_examples=300)
@given(TEXTS, st.lists(st.integers(0, 100), max_size=4), st.booleans())
def test_each_line_is_in_exactly_one_piece_wherever_a_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory, text: str, cuts: list[int], has_mark: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.csv"
    data = (b"\xef\xbb\xbf" if has_mark else b"") + (text * 9).encode()
    path.write_bytes(data)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [FilePiece(str(path), start, end) for start, end in pairwise(edges)]
    found = [line for piece in pieces for line in read(piece)]
    assert [line for _, line in found] == as_lines(text * 9)
    assert found == read(FilePiece(str(path), 0, len(data)), 10_000_000)


def test_numbers_count_blank_lines_and_those_of_earlier_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a\n\nb\r\n \nc\n")
    assert read(FilePiece(str(path), 0, 11)) == [("line 1", "a"), ("line 3", "b"), ("line 5", "c")]
    assert read(FilePiece(str(path), 4, 11)) == [("line 5", "c")]


def test_a_packed_file_is_read_by_the_piece_that_begins_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    half = path.stat().st_size // 2
    assert [line for _, line in read(FilePiece(str(path), 0, half))] == ["a", "b"]
    assert read(FilePiece(str(path), half, 2 * half)) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"a\n\xff\n", "UTF8"), (b"a" * (64 * 2**20 + 1), "a line has more than 67108864 bytes")],
    ids=["no text", "no end"],
)
def test_a_file_that_is_no_lines_of_text_is_refused(
    data: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(SourceError, match=rf"a\.csv' cannot be read: .*{reason}"):
        list(read_lines(FilePiece(str(tmp_path / "a.csv"), 0, len(data)), 2**24))


def test_a_file_that_has_grown_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\nb\n")
    with pytest.raises(SourceError, match="it has 4 bytes, and had 2 when it was planned"):
        list(read_lines(FilePiece(str(tmp_path / "a.csv"), 0, 2, file_bytes=2), 1000))
