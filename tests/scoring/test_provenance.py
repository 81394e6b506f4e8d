from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from sparkscore.provenance import environment, git_commit, run_origin

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def git(tmp_path: Path) -> Path:
    """The git folder of a new tree on branch main, without a commit."""
    folder = tmp_path / "tree" / ".git"
    (folder / "refs" / "heads").mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


def test_commit_of_a_branch_is_read_from_its_file(git: Path) -> None:
    (git / "refs" / "heads" / "main").write_text(COMMIT + "\n")
    assert git_commit(git.parent) == COMMIT


def test_commit_is_found_from_a_folder_below(git: Path) -> None:
    (git / "refs" / "heads" / "main").write_text(COMMIT + "\n")
    below = git.parent / "a" / "b"
    below.mkdir(parents=True)
    assert git_commit(below) == COMMIT


def test_commit_of_a_packed_branch_is_found(git: Path) -> None:
    (git / "packed-refs").write_text(
        "# pack-refs with: peeled fully-peeled sorted\n"
        f"{OTHER} refs/heads/mainly\n{COMMIT} refs/heads/main\n{OTHER} refs/tags/v1\n^{OTHER}\n"
    )
    assert git_commit(git.parent) == COMMIT


def test_loose_commit_is_newer_than_a_packed_one(git: Path) -> None:
    (git / "packed-refs").write_text(f"{OTHER} refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text(COMMIT + "\n")
    assert git_commit(git.parent) == COMMIT


def test_detached_commit_is_read_from_head(git: Path) -> None:
    (git / "HEAD").write_text(COMMIT + "\n")
    assert git_commit(git.parent) == COMMIT


def test_work_tree_has_a_head_of_its_own_and_shared_branches(git: Path, tmp_path: Path) -> None:
    own = git / "worktrees" / "side"
    own.mkdir(parents=True)
    (own / "HEAD").write_text("ref: refs/heads/side\n")
    (own / "commondir").write_text("../..\n")
    (git / "refs" / "heads" / "side").write_text(COMMIT + "\n")
    side = tmp_path / "side"
    side.mkdir()
    (side / ".git").write_text(f"gitdir: {own}\n")
    assert git_commit(side) == COMMIT


def test_tree_without_a_commit_has_none(git: Path) -> None:
    assert git_commit(git.parent) is None


def test_git_file_that_leads_nowhere_has_none(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: gone\n")
    assert git_commit(tmp_path) is None


def test_folder_outside_of_git_has_none(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None


def test_user_without_a_name_is_called_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(f"uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert run_origin().user.isdecimal()


def test_environment_names_python_and_the_libraries_that_decide_a_score() -> None:
    facts = environment()
    assert str(facts["python"]).startswith("3.")
    libraries = facts["libraries"]
    assert isinstance(libraries, dict)
    assert {"sparkscore", "pyspark", "pyarrow", "scikit-learn"} <= set(libraries)
