from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_settings_are_shown_with_their_origin(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "conf").mkdir()
    (folder / "conf" / "base.yaml").write_text("scoring:\n  max_rows_per_batch: 500\n")
    monkeypatch.setenv("SPARKSCORE__TRACKING__EXPERIMENT", "night")
    answer = run("--set", "trust.types=a.B,c.*", "config", "show", "--origin", "-o", "json")
    assert answer.exit_code == 0
    found = {line["key"]: (line["value"], line["origin"]) for line in answer.json}
    assert found["scoring.max_rows_per_batch"] == (500, "base.yaml:2")
    assert found["tracking.experiment"] == ("night", "env SPARKSCORE__TRACKING__EXPERIMENT")
    assert found["trust.types"] == (["a.B", "c.*"], "flag --set")
    assert found["trust.allow_code"] == (False, "default")


def test_the_table_is_plain_aligned_text_where_there_is_no_terminal(run: Run) -> None:
    lines = run("config", "show").stdout.splitlines()
    assert lines[0].split() == ["key", "value"]
    column = lines[0].index("value")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)


def test_a_password_is_masked_in_every_form(run: Run) -> None:
    for form in ("table", "json", "jsonl"):
        secret = "tracking.uri=postgresql://me:p4ss@host/db"
        answer = run("--set", secret, "config", "show", "--origin", "-o", form)
        assert "postgresql://me:***@host/db" in answer.stdout
        assert "p4ss" not in answer.stdout + answer.stderr


def test_folder_and_target_are_taken_from_the_flags(run: Run, folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "c" / "night.yaml").write_text("tracking: {experiment: night}\n")
    flags = ("--conf", "c", "--conf-target", "night")
    answer = run(*flags, "config", "show", "--origin", "-o", "jsonl")
    assert '"value": "night", "origin": "night.yaml:1"' in answer.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "tracking.url=x"], "unknown setting 'tracking.url' (flag --set) (did you mean"),
        (["--set", "tracking.uri"], "--set 'tracking.uri' is not of the form section.key=value"),
        (["--set", "trust.allow_code=perhaps"], "'trust.allow_code' is 'perhaps' (flag --set)"),
        (["--conf", "none"], "there is no conf folder 'none'; give it by --conf DIR"),
        (["--conf-target", "prod"], "conf target 'prod' has no file conf/prod.yaml"),
    ],
)
def test_settings_that_do_not_fit_end_with_2(run: Run, flags: list[str], message: str) -> None:
    answer = run(*flags, "config", "show")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error [CONFIG_INVALID]: ")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert answer.stdout == ""
