from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sparkscore.errors import ConfigError
from sparkscore.scoring.plan import (
    ScoringPlan,
    ScoringRequest,
    WriteMode,
    plan_scoring,
    rejects_beside,
)
from sparkscore.scoring.rejects import INLINE, InvalidRows, NanAnswers
from sparkscore.scoring.table_write import recipe, reject_sweep, reject_write, score_write
from tests.scoring.test_plan import MODEL, REQUEST, TABLE

SET_ASIDE = replace(REQUEST, on_invalid=InvalidRows.QUARANTINE)


def planned(request: ScoringRequest) -> ScoringPlan:
    return plan_scoring(MODEL, TABLE, request)


@pytest.mark.parametrize(
    ("target", "rejects"),
    [
        ("/data/scores", "/data/scores_rejects"),
        ("s3a://bucket/scores/", "s3a://bucket/scores_rejects"),
        ("main.scores", "main.scores_rejects"),
        ("main.`the scores`", "main.`the scores_rejects`"),
    ],
)
def test_rejected_rows_lie_beside_the_scores(target: str, rejects: str) -> None:
    assert rejects_beside(target) == rejects


def test_only_a_job_that_sets_rows_aside_has_a_table_of_them() -> None:
    assert SET_ASIDE.rejects_uri == "/data/scores_rejects"
    assert replace(SET_ASIDE, rejects="/other").rejects_uri == "/other"
    assert replace(SET_ASIDE, rejects=INLINE).rejects_uri is None
    for policy in (InvalidRows.FAIL, InvalidRows.NULL):
        assert replace(SET_ASIDE, on_invalid=policy).rejects_uri is None


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (replace(REQUEST, rejects="/other"), "goes with on_invalid 'quarantine', but .* 'fail'"),
        (replace(SET_ASIDE, rejects="/data/scores"), "names the score table itself"),
        (replace(SET_ASIDE, rejects="file:///data/scores/"), "names the score table itself"),
        (
            replace(SET_ASIDE, target=str(Path("scores").absolute()), rejects="scores"),
            "names the score table itself",
        ),
    ],
    ids=["policy", "target", "slash", "relative"],
)
def test_place_that_does_not_fit_is_refused(request_: ScoringRequest, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(request_)


def test_reasons_stand_after_the_predictions_where_rows_stay() -> None:
    columns = planned(replace(SET_ASIDE, rejects=INLINE)).score_columns
    start = columns.index("reject_code")
    assert columns[start : start + 4] == (
        "reject_code",
        "reject_column",
        "reject_message",
        "model_name",
    )
    assert "reject_code" not in planned(SET_ASIDE).score_columns


def test_place_and_policy_are_part_of_the_run() -> None:
    keys = {
        planned(request).identity.run_key
        for request in (
            REQUEST,
            SET_ASIDE,
            replace(SET_ASIDE, rejects=INLINE),
            replace(SET_ASIDE, on_nan=NanAnswers.REJECT),
        )
    }
    assert len(keys) == 4


def test_each_attempt_has_a_commit_of_rejects_of_its_own() -> None:
    plan = planned(SET_ASIDE)
    writes = [reject_write(plan, "r1"), reject_write(plan, "r2"), reject_sweep(plan, "r1")]
    assert len({write.identity.app_id for write in (*writes, score_write(plan))}) == 4
    assert writes[0].schema.names == [
        "id",
        *("reject_code", "reject_column", "reject_message", "reject_inputs", "reject_job"),
        *("model_name", "model_version", "model_digest", "rejected_at", "app_id", "run_id"),
    ]
    assert writes[2].replace_where == f"app_id = '{plan.identity.app_id}' AND run_id <> 'r1'"
    assert writes[0].unless == writes[2].identity == reject_write(plan, "r2").unless
    assert all(write.partition_by == ("app_id", "run_id") for write in writes)


def test_key_that_is_called_as_a_column_of_the_table_is_refused() -> None:
    source = replace(TABLE, columns=(*TABLE.columns, replace(TABLE.columns[0], name="App_Id")))
    plan = plan_scoring(MODEL, source, replace(SET_ASIDE, keys=("App_Id",)))
    with pytest.raises(ConfigError, match="'App_Id' is called as a column of the rejects table"):
        reject_write(plan, "r1")


def test_recipe_says_what_is_needed_to_score_the_rows_again() -> None:
    request = replace(SET_ASIDE, keep=("day",), mode=WriteMode.REPLACE, replace_where="p = 'x'")
    told = json.loads(recipe(planned(request)))
    types = {column.name: column.type_name for column in TABLE.columns}
    assert told["inputs"] == {name: types[name] for name in ("a", "b", "id", "day")}
    assert (told["job"], told["target"], told["keys"]) == ("nightly", "/data/scores", ["id"])
    assert (told["mode"], told["replace_where"]) == ("replace", "p = 'x'")


def test_replay_adds_to_what_its_run_replaced() -> None:
    request = replace(SET_ASIDE, mode=WriteMode.REPLACE, replace_where="p = 'x'")
    plan = planned(request)
    write = score_write(replace(plan, is_replay=True))
    assert (write.mode, write.replace_where) == (WriteMode.APPEND, None)
    assert write.schema == score_write(plan).schema
    merging = planned(replace(SET_ASIDE, mode=WriteMode.MERGE))
    assert score_write(replace(merging, is_replay=True)).mode is WriteMode.MERGE
