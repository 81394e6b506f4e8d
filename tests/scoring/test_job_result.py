from __future__ import annotations

import json
from pathlib import Path

import pytest

from sparkscore.errors import RunKeyConflictError, SparkscoreError, TargetBusyError, UsageError
from sparkscore.job_result import JobResult, error_facts

RESULT = JobResult(
    status="succeeded",
    code=0,
    message="scored 3 rows, großartig",
    job="nightly",
    started="2026-01-01T00:00:00+00:00",
    ended="2026-01-01T00:00:01+00:00",
    metrics={"rows_read": 3.0, "rate": float("nan"), "top": float("inf")},
)


def test_json_is_one_line_with_every_field() -> None:
    text = RESULT.to_json()
    assert "\n" not in text
    assert set(json.loads(text)) == {
        "attempt", "batch_id", "code", "ended", "error", "input", "job", "links", "message",
        "metrics", "model", "output", "run_id", "schema", "started", "status",
    }  # fmt: skip


def test_number_that_json_cannot_say_is_null() -> None:
    assert json.loads(RESULT.to_json())["metrics"] == {"rows_read": 3.0, "rate": None, "top": None}


def test_number_in_a_list_that_json_cannot_say_is_null() -> None:
    result = JobResult("failed", 1, "", "j", "", "", output={"quantiles": [1.0, float("nan")]})
    assert json.loads(result.to_json())["output"] == {"quantiles": [1.0, None]}


def test_message_of_several_lines_stays_on_one_line() -> None:
    result = JobResult("failed", 4, "a\nb\u2028c", "j", "", "")
    assert len(result.to_json().splitlines()) == 1
    assert json.loads(result.to_json())["message"] == "a\nb\u2028c"


def test_file_is_written_whole_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    RESULT.write(path)
    path.write_text("x" * 10_000)
    RESULT.write(path)
    assert path.read_text("utf-8") == RESULT.to_json() + "\n"
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_file_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    RESULT.write(tmp_path / "result.json")
    assert (tmp_path / "result.json").stat().st_mode == plain.stat().st_mode


def test_file_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(UsageError, match="--result-file"):
        RESULT.write(tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_error_of_ours_tells_its_code_and_whether_to_try_again() -> None:
    assert error_facts(TargetBusyError("busy")) == {
        "code": "TARGET_BUSY",
        "class": "TargetBusyError",
        "message": "busy",
        "retryable": True,
        "next_step": "Other writers won each try; run again, or spread the jobs over time.",
    }
    assert error_facts(RunKeyConflictError("no"))["retryable"] is False


def test_error_of_a_plug_in_is_shown_with_a_step_too() -> None:
    class OddError(SparkscoreError):
        code = "ODD"

    assert error_facts(OddError("odd"))["next_step"] == "Report it with the output of `--debug`."


def test_error_of_others_is_internal() -> None:
    facts = error_facts(ZeroDivisionError("zero"))
    assert (facts["code"], facts["class"], facts["retryable"]) == (
        "INTERNAL",
        "ZeroDivisionError",
        False,
    )
