"""How data is shown: as a table for people, as JSON, JSON lines or CSV for programs.

A table is drawn by rich on a terminal and is plain aligned text otherwise. JSON keeps types;
times are ISO 8601 in UTC, durations are seconds, and what JSON cannot say (NaN) is text.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, object]


class Output(StrEnum):
    """The forms that reading commands can answer in."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


output_option = click.option(
    "-o",
    "--output",
    type=click.Choice([form.value for form in Output]),
    default=Output.TABLE.value,
    show_default=True,
    callback=lambda _ctx, _param, value: Output(value),
    help="Form of the answer on stdout.",
)
"""Gives a command the option `-o table|json|jsonl|csv` as its argument `output`."""


def show(rows: Sequence[Row], columns: Sequence[str], output: Output) -> None:
    """Write rows to stdout; an empty table still has its header, an empty JSON is `[]`.

    Args:
        rows: Mappings that hold every column: text, numbers, truth values, None, lists, mappings.
        columns: Which keys to write, in this order.
        output: The form.
    """
    picked = [{name: row[name] for name in columns} for row in rows]
    if output is Output.JSON:
        click.echo(_json(picked, indent=2))
    elif output is Output.JSONL:
        for row in picked:
            click.echo(_json(row))
    elif output is Output.CSV:
        _write_csv(picked, columns)
    elif sys.stdout.isatty():
        _draw(picked, columns)
    else:
        _align([list(columns), *([_cell(row[name]) for name in columns] for row in picked)])


def show_record(record: Row, output: Output) -> None:
    """Write one record to stdout: a line per field as a table (nested ones dotted), else an object.

    As CSV it is two lines: the fields, nested ones dotted, and their values.

    Args:
        record: Field to value; values as in `show`.
        output: The form.
    """
    if output is Output.TABLE:
        lines = [{"field": key, "value": value} for key, value in _flat(record)]
        show(lines, ("field", "value"), output)
    elif output is Output.CSV:
        flat = dict(_flat(record))
        show([flat], tuple(flat), output)
    else:
        click.echo(_json(record, indent=2 if output is Output.JSON else None))


def utc(time_ms: int | None) -> str | None:
    """Milliseconds since the epoch as ISO 8601 in UTC; None stays None."""
    if time_ms is None:
        return None
    moment = datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_between(start_ms: int, end_ms: int | None) -> float | None:
    """The seconds from start to end; None where there is no end yet."""
    return None if end_ms is None else (end_ms - start_ms) / 1000


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _write_csv(rows: Sequence[Row], columns: Sequence[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_csv_cell(row[name]) for name in columns)
    click.echo(text.getvalue(), nl=False)


def _csv_cell(value: object) -> object:
    """Text and numbers as they are, nothing as nothing, all else as JSON."""
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, int | float | str) and plain is not True else _json(plain)


def _flat(record: Row, prefix: str = "") -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = []
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            lines += _flat(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", value))
    return lines


def _cell(value: object) -> str:
    if value is None or value in ("", (), [], {}):
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    # Names come from other people: an escape sequence in one must not reach the terminal.
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))


def _draw(rows: Sequence[Row], columns: Sequence[str]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in columns))
    Console().print(table)


def _align(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
