from __future__ import annotations

import json
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from jobs.maintain_tables import main


@pytest.mark.usefixtures("spark")
def test_job_does_the_upkeep_and_ends_with_the_worst_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        deltalake.write_deltalake(tmp_path / "scores", pa.table({"id": [i]}), mode="append")
    assert main(["scores", "--no-vacuum", "-o", "json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [(step["name"], step["status"]) for step in steps] == [
        ("optimize", "done"),
        ("checkpoint", "done"),
    ]
    assert main(["nothing", "scores", "--dry-run", "-o", "json"]) == 5
    told = capsys.readouterr()
    assert [step["status"] for step in json.loads(told.out)] == ["failed", *["planned"] * 3]
    assert "error [TARGET_INVALID]: open of" in told.err
    assert main(["scores", "--retain-hours", "1"]) == 2
