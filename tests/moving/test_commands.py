from __future__ import annotations

from pathlib import Path

import pytest

from sparkscore.cli import main
from tests.moving.mlruns_maker import MlrunsMaker


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_import_tells_what_it_left_out_and_ends_with_3(
    theirs: MlrunsMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs.experiment("1", "e")
    theirs.run("1", "good", metrics={"a": "1 2.0 3\n"})
    (theirs.root / "1" / "bare").mkdir()
    assert main(["import", "mlflow", "--from", theirs.root.as_uri()]) == 3
    told = capsys.readouterr()
    assert "run               1    0             1" in told.out
    assert told.err == "left out: run (1): its folder has no meta.yaml; such as bare\n"
    assert main(["import", "mlflow", "--from", str(theirs.root), "-o", "csv"]) == 3
    assert "run,0,1,1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "mlflow.db"), "sqlite:///mlflow.db"),
        (("--from", "nothing"), "mlruns"),
        (("--from", "sqlite:///nothing.db"), "no database file"),
        (("--from", "sqlite:///mlflow.db"), "is not MLflow's"),
        (("--from", "strange://x"), "not installed"),
        (("--from", "a b://x"), "postgresql://"),
        (("--from", ".", "--artifacts-at", "a"), "FROM=TO"),
    ],
)
def test_what_is_no_source_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlflow.db").touch()
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "meta.yaml").write_text("name: e")
    assert main(["import", "mlflow", *words]) == 2
    assert said in capsys.readouterr().err


def test_an_import_into_a_server_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "tracking.uri=http://127.0.0.1:1", "import", "mlflow", "--from", "mlruns"]
    assert main(words) == 2
    assert "run it on the server's machine" in capsys.readouterr().err


def test_an_export_goes_to_servers_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--to", "sqlite:///x.db"]) == 2
    assert "http://HOST:PORT" in capsys.readouterr().err
