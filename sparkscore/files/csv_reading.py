"""Reading CSV files as Spark's own reader does: what it would guess at, or null, is an error here.

Arrow splits the lines in which its grammar and Spark's agree, which a regular expression proves of
each block; other lines are split here, one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from sparkscore.errors import SourceError, listed, shown
from sparkscore.files.formats import ReaderOptions
from sparkscore.files.lines import Lines, line_number, read_lines
from sparkscore.files.planning import FilePiece
from sparkscore.files.reading import TableReading
from sparkscore.files.text_values import UnreadableTextError, read_texts


def read_csv(piece: FilePiece, reading: TableReading) -> Iterator[pa.RecordBatch]:
    """The rows of a piece in the file's order, with the columns of `reading.schema`.

    Raises:
        SourceError: The file is gone or damaged, its header is not that of the table, or a line has
            another number of values or a value that is none of its column's type.
    """
    dialect = _Dialect(reading.format.options)
    for lines in read_lines(piece, reading.max_bytes):
        if lines.is_first and dialect.options.header:
            _check_header(lines, dialect, piece, reading)
            yield from _rows(lines.after_first(), dialect, piece, reading)
        else:
            yield from _rows(lines, dialect, piece, reading)


class _Dialect:
    """How values are told apart; what cannot be, Spark alone reads (`formats.check_fit`).

    Attributes:
        line: Regular expression of a line that Arrow splits as Spark does.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self.options = options
        self.is_doubled = options.escape == options.quote
        quote, sep = f"\\x{ord(options.quote):02x}", f"\\x{ord(options.sep):02x}"
        plain = rf"(?:[^{quote}{sep}\n][^{sep}\n]*)?"
        simple = rf"(?:[^{quote}\n]|{quote}{quote})*" if self.is_doubled else rf"[^{quote}\\\n]*"
        inside = simple if self.is_doubled else rf"(?:[^{quote}\\\n]|\\[^\n])*"
        value = rf"(?:{quote}{simple}{quote}|{plain})"
        self.line = rf"^{value}(?:{sep}{value})*\n?$"
        self._value = re.compile(rf"(?:{quote}({inside}){quote}|({plain}))(?=[{sep}\n]|\Z)")
        escape = quote if self.is_doubled else r"\\"
        self._escaped = re.compile(rf"{escape}([{quote}{escape}])")

    def split(self, line: str) -> list[str | None] | None:
        """The values of a line, null where nothing stands; None where quotes leave a doubt."""
        values: list[str | None] = []
        position = 0
        while found := self._value.match(line, position):
            quoted, plain = found.groups()
            values.append(plain or None if quoted is None else self._escaped.sub(r"\1", quoted))
            position = found.end() + 1
            if line[found.end() : position] != self.options.sep:
                return values
        return None


def _check_header(lines: Lines, dialect: _Dialect, piece: FilePiece, reading: TableReading) -> None:
    """A header with other names, or in another order, would put values under wrong names."""
    found = [name or "" for name in dialect.split(lines.texts[0].as_py()) or ()]
    wanted = reading.format.columns
    if [name.lower() for name in found] != [name.lower() for name in wanted]:
        raise SourceError(
            f"data file {shown(piece.path)} has the header {listed(found)}, but the source's "
            f"columns are {listed(wanted)}; nothing was written; give all files one header, with "
            "a name for each column, or say so with --source-option header=false"
        )


def _rows(
    lines: Lines, dialect: _Dialect, piece: FilePiece, reading: TableReading
) -> Iterator[pa.RecordBatch]:
    if not len(lines.texts):
        return
    texts = _split_by_arrow(lines, dialect, reading)
    if texts is None:
        texts = _split_one_by_one(lines, dialect, piece, reading)
    arrays = []
    for column, field in zip(texts, reading.schema, strict=True):
        nothing = pc.equal(column, dialect.options.null_value)
        known = pc.if_else(nothing, pa.scalar(None, pa.string()), column)
        try:
            arrays.append(read_texts(known, field.type))
        except UnreadableTextError as exc:
            raise unreadable_value(piece, lines, exc, field) from None
    yield pa.RecordBatch.from_arrays(arrays, schema=reading.schema)


def _split_by_arrow(
    lines: Lines, dialect: _Dialect, reading: TableReading
) -> list[pa.StringArray] | None:
    """The columns of `reading.schema`; None where Arrow may see other values than Spark."""
    has_quotes = dialect.options.quote.encode() in lines.data
    if b"\0" in lines.data or (has_quotes and not _all_match(lines, dialect.line)):
        return None
    names = list(reading.format.columns)
    wanted = [str(reading.physical[name]) for name in reading.schema.names]
    try:
        table = csv.read_csv(
            pa.BufferReader(lines.data),
            csv.ReadOptions(use_threads=False, block_size=len(lines.data) + 1, column_names=names),
            csv.ParseOptions(
                delimiter=dialect.options.sep,
                quote_char=dialect.options.quote if has_quotes else False,
                double_quote=dialect.is_doubled,
                escape_char=False,
                newlines_in_values=False,
                ignore_empty_lines=False,
            ),
            csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None  # A line has too few values or too many: found when they are split one by one.
    if table.num_rows != len(lines.texts):
        return None
    return [table[name].combine_chunks() for name in wanted]


def _all_match(lines: Lines, grammar: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(lines.texts, grammar)).as_py())


def _split_one_by_one(
    lines: Lines, dialect: _Dialect, piece: FilePiece, reading: TableReading
) -> list[pa.StringArray]:
    names = list(reading.format.columns)
    wanted = [names.index(str(reading.physical[name])) for name in reading.schema.names]
    columns: list[list[str | None]] = [[] for _ in wanted]
    for number, line in zip(lines.numbers, lines.texts.to_pylist(), strict=True):
        values = None if "\0" in line else dialect.split(line)
        if values is None:
            raise SourceError(
                f"data file {shown(piece.path)} has quotes in {line_number(piece, int(number))} "
                f"that readers take in different ways: {shown(line)}; nothing was written; if "
                "quotes are doubled, give --source-option 'escape=\"'; if values go over several "
                "lines, multiLine=true"
            )
        if len(values) != len(names):
            raise SourceError(
                f"data file {shown(piece.path)} has {len(values)} values in "
                f"{line_number(piece, int(number))}, but the source has {len(names)} columns: "
                f"{shown(line)}; nothing was written; mend the line"
            )
        for column, index in zip(columns, wanted, strict=True):
            column.append(values[index])
    return [pa.array(column, pa.string()) for column in columns]


def unreadable_value(
    piece: FilePiece, lines: Lines, exc: UnreadableTextError, field: pa.Field
) -> SourceError:
    """The error for a text that is no value of its column's type."""
    where = line_number(piece, int(lines.numbers[exc.index]))
    return SourceError(
        f"data file {shown(piece.path)} has {shown(exc.text)} for column {field.name!r} in "
        f"{where}, which is no {field.type} of the form that all engines read alike; nothing was "
        "written; mend it, give the column another type (--source-schema), or take --engine arrow"
    )
