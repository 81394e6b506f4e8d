from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from sparkscore.spark.java import Java, spark_home
from sparkscore.spark.launch import (
    LAUNCH_OPTIONS,
    archive_files,
    export_line,
    prepare_environment,
)


@pytest.fixture
def java(tmp_path: Path) -> Java:
    """A Java that came with an archive of its own classes, as those of distributions do."""
    home = tmp_path / "jdk"
    (home / "lib" / "server").mkdir(parents=True)
    (home / "lib" / "server" / "classes.jsa").touch()
    return Java(home, 17, "PATH")


def archived(java: Java, cache: Path) -> str:
    """What a JVM is told once the classes are archived."""
    for file in archive_files(java, cache):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    files = ":".join(map(str, archive_files(java, cache)))
    return f"-XX:SharedArchiveFile={files} -Xlog:cds*=off"


def test_the_environment_names_java_spark_and_python(java: Java, tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    prepare_environment(java, environ, tmp_path)
    assert environ == {
        "JAVA_HOME": str(java.home),
        "SPARK_HOME": str(spark_home()),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }


def test_a_python_that_was_chosen_is_kept(java: Java, tmp_path: Path) -> None:
    environ = {"PYSPARK_PYTHON": "/opt/python"}
    prepare_environment(java, environ, tmp_path)
    assert environ["PYSPARK_PYTHON"] == "/opt/python"
    assert environ["PYSPARK_DRIVER_PYTHON"] == "/opt/python"


def test_archived_classes_are_added_once_to_the_options_of_the_user(
    java: Java, tmp_path: Path
) -> None:
    option = archived(java, tmp_path)
    environ = {LAUNCH_OPTIONS: "-Xss4m"}
    for _ in range(2):
        prepare_environment(java, environ, tmp_path)
        assert environ[LAUNCH_OPTIONS] == f"-Xss4m {option}"


def test_an_archive_of_the_users_own_is_kept(java: Java, tmp_path: Path) -> None:
    archived(java, tmp_path)
    environ = {LAUNCH_OPTIONS: "-XX:SharedArchiveFile=/mine.jsa"}
    prepare_environment(java, environ, tmp_path)
    assert environ[LAUNCH_OPTIONS] == "-XX:SharedArchiveFile=/mine.jsa"


def test_archived_classes_reach_the_line_for_a_shell(java: Java, tmp_path: Path) -> None:
    assert LAUNCH_OPTIONS not in export_line(java, {}, tmp_path)
    option = archived(java, tmp_path)
    assert f"{LAUNCH_OPTIONS}={option}" in shlex.split(export_line(java, {}, tmp_path))


def test_a_java_without_an_archive_of_its_own_needs_two(java: Java, tmp_path: Path) -> None:
    assert len(archive_files(java, tmp_path)) == 1
    (java.home / "lib" / "server" / "classes.jsa").unlink()
    assert len(archive_files(java, tmp_path)) == 2
    assert archived(java, tmp_path).count(".jsa") == 2


def test_archives_of_other_javas_lie_apart(java: Java, tmp_path: Path) -> None:
    other = Java(java.home, 21, "PATH")
    assert archive_files(java, tmp_path) != archive_files(other, tmp_path)
