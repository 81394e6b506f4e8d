"""Each kind of refusal ends with the exit code that an orchestrator acts on, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from sparkscore.testing.engine_cases import X
from sparkscore.testing.models import Poisoned, packaged

if TYPE_CHECKING:
    from sparkscore.spark.jars import JarSource
    from tests.journeys.conftest import Batch, Run, World

pytestmark = pytest.mark.usefixtures("spark")


def replaced(args: list[str], option: str, value: str) -> list[str]:
    """`args` with another value of one option."""
    place = args.index(option) + 1
    return [*args[:place], value, *args[place + 1 :]]


def assert_refused(run: Run, world: World, args: list[str], exit_code: int, code: str) -> None:
    answer = run("score", "batch", *args)
    assert (answer.exit_code, answer.result["code"]) == (exit_code, exit_code), answer.stderr
    assert (answer.result["status"], answer.result["error"]["code"]) == ("failed", code)
    assert "Traceback" not in answer.stderr
    assert world.commits("scores") == []


def test_an_unknown_setting_ends_with_2(run: Run, batch: Batch) -> None:
    answer = run("--set", "spark.mastre=local", "score", "batch", *batch())
    assert (answer.exit_code, answer.result["error"]["code"]) == (2, "CONFIG_INVALID")
    assert "did you mean 'spark.master'?" in answer.stderr


def test_a_missing_job_key_ends_with_2(run: Run, world: World, batch: Batch) -> None:
    args = batch()
    place = args.index("--target")
    assert_refused(run, world, args[:place] + args[place + 2 :], 2, "CONFIG_INVALID")


def test_a_source_that_is_no_table_ends_with_2(run: Run, world: World, batch: Batch) -> None:
    assert_refused(run, world, replaced(batch(), "--source", "./nowhere"), 2, "SOURCE_INVALID")


def test_a_null_key_ends_with_3(run: Run, world: World, batch: Batch) -> None:
    rows = pa.table({"id": pa.array([1, None], pa.int64()), "x": [1.0, 2.0]})
    write_deltalake(world.folder / "holes", rows)
    assert_refused(run, world, replaced(batch(), "--source", "./holes"), 3, "KEY_INVALID")


def test_rows_that_the_model_cannot_take_end_with_3(run: Run, world: World, batch: Batch) -> None:
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "x": pa.array([2**53 + 1, 1], pa.int64())})
    write_deltalake(world.folder / "wide", rows)
    assert_refused(run, world, replaced(batch(), "--source", "./wide"), 3, "ROWS_INVALID")


def test_an_unknown_alias_ends_with_4(run: Run, world: World, batch: Batch) -> None:
    args = replaced(batch(), "--model", "models:/linear@nobody")
    assert_refused(run, world, args, 4, "MODEL_NOT_FOUND")


def test_a_source_that_does_not_fit_the_model_ends_with_4(
    run: Run, world: World, batch: Batch
) -> None:
    write_deltalake(world.folder / "other", pa.table({"id": [1], "X": ["text"]}))
    args = replaced(batch(), "--source", "./other")
    assert_refused(run, world, args, 4, "SIGNATURE_MISMATCH")


def test_a_damaged_package_ends_with_4(run: Run, world: World, batch: Batch) -> None:
    model = world.folder / "linear-package" / "python_model.pkl"
    content = np.frombuffer(model.read_bytes(), np.uint8).copy()
    content[len(content) // 2] ^= 1
    model.write_bytes(content.tobytes())
    assert_refused(run, world, batch("./linear-package"), 4, "PACKAGE_DIGEST")


def test_a_package_that_needs_trust_ends_with_4(run: Run, world: World, batch: Batch) -> None:
    args = [word for word in batch() if word != "--trust-code"]
    assert_refused(run, world, args, 4, "PACKAGE_UNTRUSTED")


def test_a_run_key_of_another_version_ends_with_5(run: Run, world: World, batch: Batch) -> None:
    assert run("score", "batch", *batch()).exit_code == 0
    answer = run("score", "batch", *batch("slow"))
    assert (answer.exit_code, answer.result["error"]["code"]) == (5, "RUN_KEY_CONFLICT")
    assert len(world.commits("scores")) == 1


def test_a_target_with_other_columns_ends_with_5(run: Run, world: World, batch: Batch) -> None:
    write_deltalake(world.folder / "scores", pa.table({"id": [1], "note": ["mine"]}))
    assert_refused(run, world, batch(), 5, "TARGET_SCHEMA")


@pytest.mark.parametrize(
    ("option", "exit_code", "code"),
    [("--source", 2, "SOURCE_INVALID"), ("--target", 5, "TARGET_INVALID")],
)
def test_a_table_whose_log_is_damaged_is_named_without_frames(
    option: str, exit_code: int, code: str, run: Run, world: World, batch: Batch
) -> None:
    log = world.folder / "damaged" / "_delta_log" / f"{0:020}.json"
    log.parent.mkdir(parents=True)
    log.write_text('{"half')
    args = replaced(batch(), option, "./damaged")
    assert_refused(run, world, args, exit_code, code)
    answer = run("score", "batch", *args)
    assert "damaged" in answer.result["message"]
    assert "\tat " not in answer.stderr + answer.stdout


@pytest.mark.parametrize("option", ["--source", "--target"])
def test_a_name_that_the_catalog_cannot_have_ends_with_2(
    option: str, run: Run, world: World, batch: Batch
) -> None:
    assert_refused(run, world, replaced(batch(), option, "a.b.c"), 2, "NAME_INVALID")


def test_absent_jars_without_a_network_end_with_75(
    world: World, batch: Batch, delta_jars: JarSource
) -> None:
    home = world.folder / "home"
    (home / ".m2").mkdir(parents=True)
    (home / ".m2" / "settings.xml").write_text(
        "<settings><mirror><mirrorOf>*</mirrorOf><url>http://127.0.0.1:9</url></mirror></settings>"
    )
    empty = {"HOME": str(home), "SPARKSCORE__CACHE__FOLDER": str(world.folder / "empty")}
    assert Path(empty["SPARKSCORE__CACHE__FOLDER"]) != delta_jars.cache
    answer = world.start("score", "batch", *batch(), environ=empty).answer()
    assert (answer.exit_code, answer.result["error"]["code"]) == (75, "JARS_UNAVAILABLE")
    assert answer.result["error"]["retryable"]
    assert "Traceback" not in answer.stderr


def test_what_fails_in_tasks_is_told_once_without_frames(world: World, batch: Batch) -> None:
    model = packaged(Poisoned(), world.folder / "poisoned", inputs=X).folder
    answer = world.start("score", "batch", *batch(str(model))).answer()
    assert answer.exit_code == 4
    assert answer.stderr.count("PREDICTION_FAILED") == 1
    assert "Traceback" not in answer.stderr
    assert "\tat " not in answer.stderr
