from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import sparkscore
from sparkscore.cli.output import Output, seconds_between, show, show_record, utc

ROWS = [
    {"name": "a", "n": 1, "ok": True, "x": 0.1, "tags": {"k": "v"}, "none": None},
    {"name": "long name", "n": 20, "ok": False, "x": float("nan"), "tags": {}, "none": None},
]
COLUMNS = ("name", "n", "ok", "x", "tags", "none")


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, COLUMNS, Output.TABLE)
    assert capsys.readouterr().out == (
        "name       n   ok     x    tags  none\n"
        "a          1   true   0.1  k=v   -\n"
        "long name  20  false  nan  -     -\n"
    )


def test_json_keeps_types_and_is_always_json(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, COLUMNS, Output.JSON)
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == ROWS[0]
    assert rows[1]["x"] == "NaN"


def test_json_lines_are_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show(ROWS, ("name", "n"), Output.JSONL)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "a", "n": 1},
        {"name": "long name", "n": 20},
    ]


@pytest.mark.parametrize(
    ("form", "text"), [(Output.TABLE, "name  n\n"), (Output.JSON, "[]\n"), (Output.JSONL, "")]
)
def test_nothing_is_an_answer_too(
    capsys: pytest.CaptureFixture[str], form: Output, text: str
) -> None:
    show([], ("name", "n"), form)
    assert capsys.readouterr().out == text


def test_a_record_is_a_line_a_field_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"id": "r", "params": {"depth": "3"}, "tags": {}, "files": ["a", "b"]}
    show_record(record, Output.TABLE)
    assert [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()] == [
        ["field", "value"],
        ["id", "r"],
        ["params.depth", "3"],
        ["tags", "-"],
        ["files", "a, b"],
    ]
    show_record(record, Output.JSONL)
    out = capsys.readouterr().out
    assert (out.count("\n"), json.loads(out)) == (1, record)


def test_an_escape_sequence_in_a_name_does_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show([{"name": "a\x1b[31mb\nc"}], ("name",), Output.TABLE)
    assert capsys.readouterr().out.splitlines() == ["name", r"a\x1b[31mb\x0ac"]


def test_times_are_iso_in_utc_and_durations_seconds() -> None:
    assert utc(1_380_585_600_007) == "2013-10-01T00:00:00.007Z"
    assert utc(None) is None
    assert seconds_between(1000, 2500) == 1.5
    assert seconds_between(1000, None) is None


def test_on_a_terminal_a_table_is_drawn_and_no_color_is_honoured(tmp_path: Path) -> None:
    code = (
        "from sparkscore.cli.output import Output, show; "
        "show([{'name': '[red]x'}], ('name',), Output.TABLE)"
    )
    ours, theirs = pty.openpty()
    env = os.environ | {
        "PYTHONPATH": str(Path(sparkscore.__file__).parents[1]),
        "NO_COLOR": "1",
        "TERM": "xterm-256color",
    }
    args = [sys.executable, "-c", code]
    subprocess.run(args, cwd=tmp_path, env=env, stdout=theirs, check=True)
    os.close(theirs)
    drawn = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "│ [red]x │" in drawn
    assert "\x1b[3" not in drawn


def test_csv_has_a_header_and_quotes_what_it_must(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"a": 'x,"y"', "b": None, "c": True, "d": {"k": 1}, "e": 0.5}], "abcde", Output.CSV)
    assert capsys.readouterr().out == 'a,b,c,d,e\n"x,""y""",,true,"{""k"": 1}",0.5\n'
    show_record({"a": 1, "tags": {"k": "v"}}, Output.CSV)
    assert capsys.readouterr().out == "a,tags.k\n1,v\n"
