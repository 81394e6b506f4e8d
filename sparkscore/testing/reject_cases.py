"""What every engine does with rows that get no prediction; part of `EngineContract`."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from sparkscore.errors import InvalidRowsError, PredictionError, RejectBudgetError
from sparkscore.files.sink import FilesSink, WrittenScores
from sparkscore.package.signature import ColumnSchema, ColumnSpec, ScalarType
from sparkscore.scoring.batch import BatchLimits
from sparkscore.scoring.engine import RunFacts
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import Commit, Outcome, OutcomeStatus
from sparkscore.scoring.plan import ScoringRequest, WriteMode, rejects_beside
from sparkscore.scoring.rejects import INLINE, InvalidRows, NanAnswers, RejectBudget
from sparkscore.scoring.table_write import TableWrite
from sparkscore.testing.engine_cases import (
    MANY_DOUBLES,
    ODD_LONG,
    WHOLE_X,
    YEAR_1,
    YEAR_9999,
    X,
    request,
    with_invalid_rows,
)
from sparkscore.testing.models import Poisoned, Refusing, Third, packaged

LIMITS = BatchLimits()

POISONED = pa.table(
    {
        "id": pa.array(range(8), pa.int64()),
        "x": [3.0, 13.0, 7.0, 6.0, 13.0, 9.0, 12.0, 0.5],
        "part": ["a", "a", "a", "b", "b", "b", None, None],
    }
)
"""Rows 1 and 4 are those on which the model `Poisoned` raises; it answers NaN for row 2."""


class SinkDiedError(Exception):
    """Stands for the end of a process between the commit of its rejects and that of its scores."""


class DyingFiles(FilesSink):
    """A score table whose writer is gone before it commits."""

    def write(self, scores: WrittenScores, write: TableWrite, facts: RunFacts) -> Commit:  # noqa: ARG002
        """Never returns.

        Raises:
            SinkDiedError: Always.
        """
        raise SinkDiedError


def quarantine(target: Path, run_key: str = "night") -> ScoringRequest:
    """A request that sets rows aside."""
    return request(target, on_invalid=InvalidRows.QUARANTINE, run_key=run_key)


class RejectCases:
    """Subclass with `score` and `read`; every test has an empty `tmp_path` for its tables."""

    def score(
        self,
        model: ModelFacts,
        rows: pa.Table,
        request: ScoringRequest,
        *,
        n_partitions: int = 2,
        where: str | None = None,
        limits: BatchLimits = LIMITS,
        dies: bool = False,
    ) -> Outcome:
        """Store `rows` as a new version of the source beside the target, plan, and run.

        Args:
            model: Scores them.
            rows: What it scores.
            request: What is asked for.
            n_partitions: Tasks, about.
            where: A filter.
            limits: Bounds of a batch.
            dies: Whether a SinkDiedError is raised in the place of the scores' commit.
        """
        raise NotImplementedError

    def read(self, target: Path) -> pa.Table:
        """A score or rejects table as its files say, read without the engine."""
        raise NotImplementedError

    def n_commits(self, target: Path) -> int:
        """Commits in a table's log; 0 where there is no table."""
        return len(list((target / "_delta_log").glob("*.json")))

    def rejects(self, target: Path, by: str = "id") -> pa.Table:
        """The rejected rows beside a score table."""
        return self.read(Path(rejects_beside(str(target)))).sort_by(by)

    def ids(self, target: Path) -> list[int]:
        """The keys in a score table."""
        found: list[int] = self.read(target).sort_by("id")["id"].to_pylist()
        return found

    @pytest.fixture
    def target(self, tmp_path: Path) -> Path:
        return tmp_path / "scores"

    @pytest.fixture
    def poisoned(self, tmp_path: Path) -> ModelFacts:
        return packaged(Poisoned(), tmp_path / "poisoned", inputs=X)

    def test_invalid_row_fails_the_job_and_names_the_column(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=WHOLE_X)
        with pytest.raises(InvalidRowsError, match=r"column 'x' is null.*--on-invalid quarantine"):
            self.score(model, with_invalid_rows(), request(target))
        assert self.n_commits(target) == 0

    def test_rejected_rows_are_counted_and_kept_in_a_table_of_their_own(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=WHOLE_X)
        outcome = self.score(model, with_invalid_rows(), quarantine(target))
        outcome.check_books()
        assert (outcome.n_read, outcome.n_scored, outcome.n_rejected) == (5, 3, 2)
        assert outcome.as_metrics()["rows_rejected"] == 2
        assert [tuple(reason[:3]) for reason in outcome.reasons] == [("NULL_VALUE", "x", 2)]
        assert self.ids(target) == [0, 2, 3]
        rejects = self.rejects(target)
        assert rejects["id"].to_pylist() == [1, 4]
        assert set(rejects["reject_code"].to_pylist()) == {"NULL_VALUE"}
        assert set(rejects["reject_column"].to_pylist()) == {"x"}
        assert [json.loads(text) for text in rejects["reject_inputs"].to_pylist()] == [
            {"x": None, "id": 1},
            {"x": None, "id": 4},
        ]
        assert set(rejects["model_digest"].to_pylist()) == {model.digest}
        assert set(rejects["run_id"].to_pylist()) == {outcome.commit.run_id}
        assert len(set(rejects["rejected_at"].to_pylist())) == 1
        assert outcome.rejects is not None
        assert outcome.rejects.n_rows == 2

    def test_run_without_rejected_rows_makes_no_table_of_them(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        outcome = self.score(poisoned, POISONED.slice(5), quarantine(target))
        outcome.check_books()
        assert (outcome.n_scored, outcome.n_rejected, outcome.rejects) == (3, 0, None)
        assert not Path(rejects_beside(str(target))).exists()

    def test_rows_on_which_the_model_raises_are_set_aside_and_all_others_scored(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        outcome = self.score(poisoned, POISONED, quarantine(target))
        outcome.check_books()
        assert (outcome.n_scored, outcome.n_rejected) == (6, 2)
        assert self.ids(target) == [0, 2, 3, 5, 6, 7]
        rejects = self.rejects(target)
        assert rejects["id"].to_pylist() == [1, 4]
        assert rejects["reject_code"].to_pylist() == ["MODEL_RAISED"] * 2
        assert rejects["reject_column"].to_pylist() == [None, None]
        assert rejects["reject_message"].to_pylist() == ["ZeroDivisionError: thirteen in 1"] * 2

    def test_rows_without_a_prediction_stay_as_nulls_where_they_are_asked_to(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        asked = request(target, on_invalid=InvalidRows.NULL)
        outcome = self.score(poisoned, POISONED, replace(asked, on_nan=NanAnswers.REJECT))
        outcome.check_books()
        assert (outcome.n_scored, outcome.n_rejected, outcome.n_nulled) == (5, 0, 3)
        assert outcome.as_metrics()["rows_nulled"] == 3
        scores = self.read(target).sort_by("id")
        assert scores["prediction"].to_pylist() == [1.0, None, None, 2.0, None, 3.0, 4.0, 0.5 / 3]
        assert not Path(rejects_beside(str(target))).exists()

    def test_rejected_rows_may_stay_in_the_score_table_with_their_reasons(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        asked = replace(quarantine(target), rejects=INLINE, on_nan=NanAnswers.REJECT)
        outcome = self.score(poisoned, POISONED, asked)
        outcome.check_books()
        assert (outcome.n_scored, outcome.n_rejected, outcome.n_nulled) == (5, 3, 0)
        scores = self.read(target).sort_by("id")
        assert scores["prediction"].null_count == 3
        codes = [None, "MODEL_RAISED", "ANSWER_NAN", None, "MODEL_RAISED", None, None, None]
        assert scores["reject_code"].to_pylist() == codes
        assert scores["reject_column"].to_pylist() == [None, None, "prediction", *[None] * 5]
        assert scores["reject_message"].null_count == 5
        assert not Path(rejects_beside(str(target))).exists()

    def test_nan_is_an_answer_unless_it_is_told_not_to_be(
        self, poisoned: ModelFacts, target: Path, tmp_path: Path
    ) -> None:
        rows = POISONED.slice(2, 2)
        assert self.score(poisoned, rows, quarantine(target)).n_rejected == 0
        other = tmp_path / "other"
        asked = replace(quarantine(other), on_nan=NanAnswers.REJECT)
        assert self.score(poisoned, rows, asked).n_rejected == 1
        assert self.rejects(other)["reject_code"].to_pylist() == ["ANSWER_NAN"]
        failing = replace(request(tmp_path / "third"), on_nan=NanAnswers.REJECT)
        with pytest.raises(PredictionError, match="answered NaN in column 'prediction'"):
            self.score(poisoned, rows, failing)

    def test_inputs_of_a_rejected_row_are_kept_as_they_are(
        self, tmp_path: Path, target: Path
    ) -> None:
        kept = {
            "amount": pa.array([Decimal("12345678901234567890.12"), None], pa.decimal128(38, 2)),
            "at": pa.array([YEAR_1, YEAR_9999], pa.timestamp("us", "UTC")),
            "n": pa.array([ODD_LONG, None], pa.int64()),
            "day": pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31)], pa.date32()),
            "raw": pa.array([b"\x00\xff", None], pa.binary()),
            "narrow": pa.array([0.1, float("nan")], pa.float32()),
            "nested": pa.array(
                [[{"a": ODD_LONG, "b": "ü€"}, None], None],
                pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())])),
            ),
        }
        rows = pa.table({"id": pa.array([0, 1], pa.int64()), "x": [13.0, 1.5], **kept})
        model = packaged(Refusing(), tmp_path / "model", inputs=X)
        budget = RejectBudget()
        self.score(model, rows, replace(quarantine(target), keep=tuple(kept), max_rejects=budget))
        first, second = map(json.loads, self.rejects(target)["reject_inputs"].to_pylist())
        assert Decimal(str(first.pop("amount"))) == Decimal("12345678901234567890.12")
        assert _time(first.pop("at")) == YEAR_1
        assert abs(first.pop("narrow") - 0.1) < 1e-7
        assert first == {
            "x": 13.0,
            "id": 0,
            "n": ODD_LONG,
            "day": "0001-01-01",
            "raw": base64.b64encode(b"\x00\xff").decode(),
            "nested": [{"a": ODD_LONG, "b": "ü€"}, None],
        }
        assert _time(second.pop("at")) == YEAR_9999
        nulls = dict.fromkeys(("amount", "n", "raw", "nested"))
        assert second == {"x": 1.5, "id": 1, "day": "9999-12-31", "narrow": "NaN"} | nulls

    def test_inputs_of_a_model_of_many_doubles_are_kept_as_they_are(
        self, tmp_path: Path, target: Path
    ) -> None:
        names = ("a", "b", "narrow", "int", "short")
        inputs = ColumnSchema(tuple(ColumnSpec(name, ScalarType.DOUBLE) for name in names))
        model = packaged(Refusing(), tmp_path / "model", inputs=inputs)
        rows = MANY_DOUBLES.slice(0, 2).select(["id", *names])
        self.score(model, rows, replace(quarantine(target), max_rejects=RejectBudget()))
        first, second = map(json.loads, self.rejects(target)["reject_inputs"].to_pylist())
        assert first == {"a": -0.0, "b": None, "narrow": -0.0, "int": 2**31 - 1, "short": None} | {
            "id": 0
        }
        assert second["int"] == -(2**31)

    def test_key_of_a_rejected_row_may_be_null(self, poisoned: ModelFacts, target: Path) -> None:
        ids = pa.array([0, None, 2, 3, None, 5, 6, 7], pa.int64())
        outcome = self.score(poisoned, POISONED.set_column(0, "id", ids), quarantine(target))
        outcome.check_books()
        assert self.rejects(target)["id"].to_pylist() == [None, None]

    def test_more_rejected_rows_than_the_run_may_have_commit_nothing(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        for budget, excess in [
            (RejectBudget(max_rows=1), "more than 1"),
            (RejectBudget(max_share=0.2), "more than 20%"),
        ]:
            asked = replace(quarantine(target), max_rejects=budget)
            with pytest.raises(RejectBudgetError) as caught:
                self.score(poisoned, POISONED, asked, n_partitions=1)
            assert caught.value.exit_code == 3
            text = str(caught.value)
            for part in (excess, "2 x MODEL_RAISED", "thirteen in 1", "--max-rejects"):
                assert part in text
            assert not target.exists()
            assert not Path(rejects_beside(str(target))).exists()
        for budget in (RejectBudget(max_rows=2), RejectBudget(max_share=0.25)):
            asked = replace(quarantine(target), max_rejects=budget)
            self.score(poisoned, POISONED, asked, n_partitions=1)
        assert self.ids(target) == [0, 2, 3, 5, 6, 7]

    def test_more_rejected_rows_than_a_partition_may_have_commit_nothing(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        asked = replace(
            quarantine(target),
            keep=("part",),
            partition_by=("part",),
            max_partition_rejects=RejectBudget(max_share=0.3),
        )
        with pytest.raises(RejectBudgetError, match=r"1 of 3 rows of partition .*\"part\".*30%"):
            self.score(poisoned, POISONED, asked)
        assert not target.exists()
        admitted = replace(asked, max_partition_rejects=RejectBudget(max_share=0.34))
        self.score(poisoned, POISONED, admitted).check_books()
        assert len(self.rejects(target)) == 2

    def test_second_run_with_the_same_key_rejects_nothing_more(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        self.score(poisoned, POISONED, quarantine(target))
        again = self.score(poisoned, POISONED, quarantine(target))
        assert again.status is OutcomeStatus.ALREADY_SCORED
        assert len(self.rejects(target)) == 2
        # That of the rows, and that after which no attempt commits any more.
        assert self.n_commits(Path(rejects_beside(str(target)))) == 2

    def test_rejects_of_an_attempt_that_committed_no_score_are_replaced(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        for _ in range(2):
            with pytest.raises(SinkDiedError):
                self.score(poisoned, POISONED, quarantine(target), dies=True)
        assert not self.n_commits(target)
        assert len(self.rejects(target)) == 4
        outcome = self.score(poisoned, POISONED, quarantine(target))
        outcome.check_books()
        assert self.ids(target) == [0, 2, 3, 5, 6, 7]
        rejects = self.rejects(target)
        assert rejects["id"].to_pylist() == [1, 4]
        assert set(rejects["run_id"].to_pylist()) == {outcome.commit.run_id}

    def test_rejects_of_other_runs_stay(self, poisoned: ModelFacts, target: Path) -> None:
        self.score(poisoned, POISONED, quarantine(target, "first"))
        with pytest.raises(SinkDiedError):
            self.score(poisoned, POISONED, quarantine(target, "second"), dies=True)
        self.score(poisoned, POISONED.slice(0, 3), quarantine(target, "third"))
        assert self.rejects(target)["id"].to_pylist() == [1, 1, 1, 4, 4]

    def test_replaced_rows_leave_the_rejects_of_earlier_runs(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        for run_key in ("one", "two"):
            asked = replace(
                quarantine(target, run_key), mode=WriteMode.REPLACE, replace_where="id >= 0"
            )
            self.score(poisoned, POISONED, asked).check_books()
        assert self.ids(target) == [0, 2, 3, 5, 6, 7]
        rejects = self.rejects(target)
        assert rejects["id"].to_pylist() == [1, 1, 4, 4]
        assert len(set(rejects["run_id"].to_pylist())) == 2


def _time(text: object) -> dt.datetime:
    return dt.datetime.fromisoformat(str(text))
