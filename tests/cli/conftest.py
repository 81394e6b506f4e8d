from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkscore.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> object:
        return json.loads(self.stdout)


Run = Callable[..., Answer]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with none of this machine's settings in the environment."""
    for name in list(os.environ):
        if name.startswith(("SPARKSCORE_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in `folder`, in this process, through the real entry point."""
    assert folder == Path.cwd()

    def run(*args: str) -> Answer:
        capsys.readouterr()
        exit_code = main(args)
        captured = capsys.readouterr()
        return Answer(exit_code, captured.out, captured.err)

    return run
