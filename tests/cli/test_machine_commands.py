"""`setup`, `doctor` and `env`: what they say of this machine, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from sparkscore.spark.java import spark_home

pytestmark = pytest.mark.usefixtures("cache")


class Answer(Protocol):
    exit_code: int
    stdout: str
    stderr: str
    json: Any


Run = Callable[..., Answer]
REQUIRED = ["java", "spark", "delta jars", "tracking store", "artifact store", "cache folder"]


@pytest.fixture
def jars_folder(tmp_path: Path) -> Path:
    made = tmp_path / "some jars"
    made.mkdir()
    (made / "delta-spark_4.2_2.13-1.0.0.jar").touch()
    return made


@pytest.fixture
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARKSCORE__CACHE__FOLDER", str(folder / "cache"))
    return folder / "cache"


def made_in(cache: Path) -> set[str]:
    """Kinds of things below the cache; the wheel's Java needs its launcher there to be asked."""
    return {path.name.partition("-")[0] for path in cache.glob("*")}


def by_part(answer: Answer) -> dict[str, Any]:
    return {row["part"]: row for row in answer.json}


def test_setup_from_a_folder_makes_the_doctor_content(
    run: Run, cache: Path, jars_folder: Path
) -> None:
    answer = run("setup", "--jars-folder", str(jars_folder), "-o", "json")
    assert answer.exit_code == 0, answer.stderr
    assert answer.json["jars"] == ["delta-spark_4.2_2.13-1.0.0.jar"]
    assert Path(answer.json["jars_folder"]).is_relative_to(cache)
    healthy = run("doctor", "-o", "json")
    assert healthy.exit_code == 0
    assert [row["status"] for row in healthy.json if row["required"]] == ["ok"] * len(REQUIRED)


def test_setup_with_kafka_takes_its_jars_from_the_folder_too(
    run: Run, cache: Path, jars_folder: Path
) -> None:
    command = ("setup", "--kafka", "--no-class-archive", "--jars-folder", str(jars_folder))
    refused = run(*command)
    assert refused.exit_code == 2
    assert "has no spark-sql-kafka" in refused.stderr
    (jars_folder / "spark-sql-kafka-0-10_2.13-4.2.0.jar").touch()
    assert "spark-sql-kafka-0-10_2.13-4.2.0.jar" in run(*command, "-o", "json").json["kafka_jars"]
    assert made_in(cache) <= {"jdk", "jars"}


def test_the_doctor_names_the_command_that_brings_jars(run: Run, cache: Path) -> None:
    answer = run("doctor", "-o", "json")
    assert answer.exit_code == 75
    assert by_part(answer)["delta jars"]["code"] == "JARS_UNAVAILABLE"
    assert by_part(answer)["delta jars"]["detail"].endswith("run: sparkscore setup")
    assert by_part(answer)["kafka jars"]["detail"].endswith("sparkscore setup --kafka")
    assert made_in(cache) <= {"jdk"}


def test_the_doctor_makes_no_database(run: Run, folder: Path, cache: Path) -> None:
    answer = run("doctor", "-o", "json")
    assert by_part(answer)["tracking store"]["status"] == "ok"
    assert not (folder / "sparkscore.db").exists()
    assert made_in(cache) <= {"jdk"}


def test_a_fault_that_a_person_must_mend_ends_with_2(run: Run, cache: Path) -> None:
    cache.write_text("a file where a folder is wanted")
    answer = run("doctor", "-o", "json")
    assert answer.exit_code == 2
    assert by_part(answer)["cache folder"]["status"] == "missing"
    assert "cannot be written to" in by_part(answer)["cache folder"]["detail"]


def test_a_database_that_is_none_is_found_out(run: Run, folder: Path) -> None:
    (folder / "sparkscore.db").write_text("no database, but long enough to be looked at\n" * 99)
    answer = run("doctor", "-o", "json")
    assert by_part(answer)["tracking store"]["status"] == "missing"
    assert answer.exit_code != 0


def test_a_connect_server_makes_java_and_jars_optional(run: Run) -> None:
    answer = run("--set", "spark.remote=sc://127.0.0.1:15002", "doctor", "-o", "json")
    assert answer.exit_code == 0
    assert not by_part(answer)["delta jars"]["required"]


def test_the_doctors_table_lists_every_part(run: Run) -> None:
    lines = run("doctor").stdout.splitlines()
    assert lines[0].split() == ["part", "status", "required", "detail", "code"]
    assert [line[: len(part)] for line, part in zip(lines[1:], REQUIRED, strict=False)] == REQUIRED


def test_env_gives_a_shell_what_spark_submit_needs(run: Run) -> None:
    line = run("env").stdout
    shell = f'{line}\necho "$SPARK_HOME|$PYSPARK_PYTHON|$(command -v spark-submit)"'
    done = subprocess.run(
        ["/bin/sh", "-c", shell],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    home = spark_home()
    assert done.stdout == f"{home}|{sys.executable}|{home / 'bin' / 'spark-submit'}\n"


def test_setup_without_a_network_ends_with_75(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".m2").mkdir()
    (folder / ".m2" / "settings.xml").write_text(
        "<settings><mirror><mirrorOf>*</mirrorOf><url>http://127.0.0.1:9</url></mirror></settings>"
    )
    monkeypatch.setenv("HOME", str(folder))
    answer = run("setup")
    assert answer.exit_code == 75
    assert answer.stderr.splitlines()[-1].startswith("error [JARS_UNAVAILABLE]: ")
    assert answer.stdout == ""
