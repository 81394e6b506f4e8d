"""What every Engine does; an implementation's tests subclass `EngineContract`."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from sparkscore.errors import (
    BatchDeadlineError,
    InvalidRowsError,
    KeyColumnError,
    ModelTooLargeError,
    PredictionError,
    RunKeyConflictError,
    TargetSchemaError,
    WorkerCrashError,
)
from sparkscore.package.schema import TensorSchema, TensorSpec
from sparkscore.package.signature import (
    AnyType,
    ArrayType,
    ColumnSchema,
    ColumnSpec,
    DataType,
    MapType,
    ObjectType,
    ParamSpec,
    Property,
    ScalarType,
)
from sparkscore.scoring.batch import BatchLimits
from sparkscore.scoring.facts import ModelFacts
from sparkscore.scoring.outcome import OutcomeStatus
from sparkscore.scoring.plan import WriteMode
from sparkscore.scoring.rejects import InvalidRows
from sparkscore.testing.check_cases import CheckCases
from sparkscore.testing.engine_cases import (
    ARRAYS,
    MANY_DOUBLES,
    OBJECTS,
    ODD_LONG,
    ROWS,
    TEXT,
    YEAR_1,
    YEAR_9999,
    X,
    comparable,
    direct,
    request,
    wide_rows,
)
from sparkscore.testing.models import (
    BatchSize,
    Ending,
    Greedy,
    OneForAll,
    Refusing,
    SeenAsArrays,
    SeenAsText,
    Third,
    Thirds,
    TimesFactor,
    one_hot_model,
    packaged,
    scripted,
)
from sparkscore.testing.reject_cases import POISONED, quarantine

_NOT_FINITE = (float("nan"), float("inf"), -float("inf"))


class EngineContract(CheckCases):
    """Subclass with `score` and `read`; every test has an empty `tmp_path` for its tables."""

    n_cores: int
    """Tasks that the engine runs at once."""

    def test_scores_are_those_of_the_model_called_directly_to_the_bit(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Thirds(), tmp_path / "model", outputs=_thirds())
        outcome = self.score(model, ROWS, request(target))
        outcome.check_books()
        assert (outcome.n_read, outcome.n_scored, outcome.n_rejected) == (6, 6, 0)
        assert self._predictions(target, "third", "sign") == direct(model, ROWS)

    def test_predictions_that_are_not_finite_are_stored_and_counted(
        self, tmp_path: Path, target: Path
    ) -> None:
        rows = ROWS.set_column(1, "x", pa.array([1.0, *_NOT_FINITE, 3.0, 0.0]))
        outcome = self.score(packaged(Third(), tmp_path / "model", inputs=X), rows, request(target))
        assert outcome.as_metrics()["predictions_not_finite"] == 3
        found = [row["prediction"] for row in self._predictions(target, "prediction")]
        assert found == [n.hex() for n in (1 / 3, *_NOT_FINITE, 1.0, 0.0)]

    def test_values_that_no_encoder_knows_are_counted_by_column(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = one_hot_model(tmp_path / "model")
        outcome = self.score(model, ROWS, request(target), n_partitions=1)
        assert outcome.n_scored == 6
        assert outcome.as_metrics()["values_unknown"] == 3
        ((name, levels),) = outcome.unknown_levels.items()
        assert (name, levels.n_rows, levels.first) == ("word", 3, "'ü€😀'")

    def test_model_sees_every_value_as_it_is(self, tmp_path: Path, target: Path) -> None:
        model = packaged(
            SeenAsText(), tmp_path / "model", outputs={"prediction": ScalarType.STRING}
        )
        self.score(model, ROWS, request(target))
        seen = self._predictions(target, "prediction")
        assert seen == direct(model, ROWS)
        assert [str(row["prediction"]).split(" | ")[1] for row in seen] == [
            str(ODD_LONG),
            "null",
            "-1",
            str(-ODD_LONG),
            str(2**53 + 1),
            "null",
        ]

    def test_model_of_many_doubles_sees_each_as_it_is(self, tmp_path: Path, target: Path) -> None:
        doubles = (ColumnSpec(name, ScalarType.DOUBLE) for name in MANY_DOUBLES.column_names[1:6])
        inputs = ColumnSchema((*doubles, ColumnSpec("whole", ScalarType.LONG)))
        model = packaged(
            SeenAsText(),
            tmp_path / "model",
            inputs=inputs,
            outputs={"prediction": ScalarType.STRING},
        )
        # Kept columns may be called as an engine calls what is its own.
        kept = ("p0", "valid", "report", "at")
        asked = request(target, keep=kept, on_invalid=InvalidRows.QUARANTINE)
        outcome = self.score(model, MANY_DOUBLES, asked)
        outcome.check_books()
        assert (outcome.n_read, outcome.n_scored, outcome.n_rejected) == (6, 5, 1)
        valid = MANY_DOUBLES.filter(MANY_DOUBLES["whole"].is_valid())
        assert self._predictions(target, "prediction") == direct(model, valid)
        assert self.read(target).sort_by("id").select(kept).equals(valid.select(kept))

    def test_model_of_objects_sees_them_as_dictionaries_with_the_parts_that_it_declares(
        self, tmp_path: Path, target: Path
    ) -> None:
        thing = ObjectType(
            (
                Property("a", ScalarType.LONG),
                Property("b", ScalarType.DOUBLE, required=False),
                Property("c", ScalarType.STRING, required=False),
            )
        )
        inputs = ColumnSchema(
            (
                ColumnSpec("thing", thing),
                ColumnSpec("things", ArrayType(thing)),
                ColumnSpec("marks", MapType(ScalarType.DOUBLE)),
                ColumnSpec("free", AnyType()),
            )
        )
        model = packaged(SeenAsText(), tmp_path / "model", inputs=inputs, outputs=TEXT)
        asked = request(target, on_invalid=InvalidRows.QUARANTINE)
        outcome = self.score(model, OBJECTS, asked)
        outcome.check_books()
        assert (outcome.n_scored, outcome.n_rejected) == (2, 1)
        whole = "{'a': 9223372036854775707, 'b': 1.0, 'c': None}"
        assert self._scores(target) == [
            f"{whole} | [{whole}, None] | {{'x': 0.5, 'y': None}} | {{'z': [1, 2]}}",
            "null | null | null | null",
        ]

    @pytest.mark.parametrize("column", ["lists", "0"])
    def test_model_of_a_matrix_sees_rows_of_lists_or_of_columns(
        self, tmp_path: Path, target: Path, column: str
    ) -> None:
        inputs = TensorSchema((TensorSpec(None, "float64", (-1, 2)),))
        model = packaged(SeenAsArrays(), tmp_path / "model", inputs=inputs, outputs=TEXT)
        self.score(model, ARRAYS, request(target, columns={"0": column}))
        assert self._scores(target) == [f":float64[2][{i}.5, {2**53 - i}.0]" for i in range(4)]
        assert self._predictions(target, "prediction") == direct(model, ARRAYS, {"0": column})

    def test_model_of_named_tensors_sees_each_in_its_type_and_shape(
        self, tmp_path: Path, target: Path
    ) -> None:
        tensors = (
            TensorSpec("one", "int64", (-1,)),
            TensorSpec("wide", "float32", (-1, 1)),
            TensorSpec("image", "uint8", (-1, 2, 3)),
            TensorSpec("word", "str", (-1,)),
        )
        model = packaged(
            SeenAsArrays(), tmp_path / "model", inputs=TensorSchema(tensors), outputs=TEXT
        )
        self.score(model, ARRAYS, request(target))
        seen = self._scores(target)
        image = "image:uint8[2, 3][[1, 2, 3], [4, 5, 255]]"
        assert seen[1] == f"one:int64[]{2**53 - 1} | wide:float32[1][0.5] | {image} | word:str_[]ab"
        assert self._predictions(target, "prediction") == direct(model, ARRAYS)

    def test_rows_that_no_tensor_has_are_rejected_or_fail_the_job_by_name(
        self, tmp_path: Path, target: Path
    ) -> None:
        inputs = TensorSchema((TensorSpec("lists", "float64", (-1, 2)),))
        model = packaged(SeenAsArrays(), tmp_path / "model", inputs=inputs, outputs=TEXT)
        lists = pa.array([[0.5, 1.5], [1.5], None, [2.5, None], [3.5, 4.5]], ARRAYS["lists"].type)
        rows = pa.table({"id": pa.array(range(5), pa.int64()), "lists": lists})
        with pytest.raises(InvalidRowsError, match=r"column 'lists' is .* no row of double\[2\]"):
            self.score(model, rows, request(target), n_partitions=1)
        outcome = self.score(model, rows, request(target, on_invalid=InvalidRows.QUARANTINE))
        outcome.check_books()
        assert (outcome.n_read, outcome.n_scored, outcome.n_rejected) == (5, 2, 3)
        seen = [f"lists:float64[2][{x}, {x + 1}]" for x in (0.5, 3.5)]
        assert self._scores(target) == seen

    def test_params_reach_the_model_and_are_part_of_the_run(
        self, tmp_path: Path, target: Path
    ) -> None:
        spec = ParamSpec("factor", ScalarType.DOUBLE, 2.0)
        model = packaged(TimesFactor(), tmp_path / "model", inputs=X, params=(spec,))
        rows = ROWS.slice(0, 2)
        self.score(model, rows, request(target))
        assert self._scores(target) == [2.0, -0.2]
        with pytest.raises(RunKeyConflictError, match=r'params.*\{"factor": 3\.0\}'):
            self.score(model, rows, replace(request(target), params={"factor": 3}))
        given = replace(request(tmp_path / "given"), params={"factor": 3})
        self.score(model, rows, given)
        assert self._scores(tmp_path / "given") == [3.0, 3 * -0.1]

    def test_models_that_bring_modules_of_one_name_have_each_their_own(
        self, tmp_path: Path
    ) -> None:
        models = {factor: scripted(tmp_path / f"m{factor}", factor, inputs=X) for factor in (2, 4)}
        for attempt in range(2):
            for factor, model in models.items():
                target = tmp_path / f"{factor}-{attempt}"
                self.score(model, ROWS.slice(0, 2), request(target))
                assert self._scores(target) == [1.0 * factor, -0.1 * factor]

    def test_kept_columns_are_exact_in_the_score_table(self, tmp_path: Path, target: Path) -> None:
        kept = {
            "amount": pa.array([Decimal("12345678901234567890.12"), None], pa.decimal128(38, 2)),
            "at": pa.array([YEAR_1, YEAR_9999], pa.timestamp("us", "UTC")),
            "n": pa.array([ODD_LONG, None], pa.int64()),
            "day": pa.array([dt.date(1, 1, 1), dt.date(9999, 12, 31)], pa.date32()),
            "raw": pa.array([b"\x00\xff", None], pa.binary()),
            "nested": pa.array(
                [[{"a": ODD_LONG, "b": "x"}, None], None],
                pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())])),
            ),
        }
        rows = pa.table({"id": pa.array([0, 1], pa.int64()), "x": [0.5, 1.5], **kept})
        model = packaged(Third(), tmp_path / "model", inputs=X)
        self.score(model, rows, request(target, keep=tuple(kept)))
        written = self.read(target).sort_by("id")
        for name in kept:
            assert written.column(name).to_pylist() == rows.column(name).to_pylist(), name

    def test_every_row_says_where_it_comes_from(self, tmp_path: Path, target: Path) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        outcome = self.score(model, ROWS, request(target))
        written = self.read(target)
        assert written.column_names == [
            "id",
            "prediction",
            "model_name",
            "model_version",
            "model_digest",
            "run_id",
            "scored_at",
        ]
        assert set(written.column("model_name").to_pylist()) == {model.name}
        assert set(written.column("model_version").to_pylist()) == {"1"}
        assert set(written.column("model_digest").to_pylist()) == {model.digest}
        assert set(written.column("run_id").to_pylist()) == {outcome.commit.run_id}
        assert len(set(written.column("scored_at").to_pylist())) == 1

    def test_any_partitioning_gives_the_same_scores_and_one_load_a_worker(
        self, tmp_path: Path
    ) -> None:
        model = packaged(Thirds(), tmp_path / "model", inputs=X, outputs=_thirds())
        x = [None if i % 7 == 0 else i / 7 for i in range(200)]
        rows = pa.table({"id": pa.array(range(200), pa.int64()), "x": pa.array(x, pa.float64())})
        expected = direct(model, rows)
        for n_partitions in (1, 7, 40):
            target = tmp_path / f"scores-{n_partitions}"
            outcome = self.score(model, rows, request(target), n_partitions=n_partitions)
            assert self._predictions(target, "third", "sign") == expected
            metrics = outcome.as_metrics()
            assert metrics["model_loads_max_per_worker"] == 1
            assert metrics["python_workers"] <= self.n_cores
            assert metrics["model_loads"] <= self.n_cores

    def test_source_without_rows_gives_a_commit_without_rows(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        outcome = self.score(model, ROWS.slice(0, 0), request(target))
        outcome.check_books()
        assert (outcome.n_read, outcome.n_scored) == (0, 0)
        written = self.read(target)
        assert written.num_rows == 0
        assert written.schema.field("prediction").type == pa.float64()

    def test_filter_that_selects_nothing_gives_a_commit_without_rows(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        outcome = self.score(model, ROWS, request(target), where="1 = 0")
        outcome.check_books()
        assert (outcome.n_read, outcome.n_scored) == (0, 0)
        assert self.read(target).num_rows == 0

    def test_second_run_with_the_same_key_writes_nothing(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        first = self.score(model, ROWS, request(target))
        second = self.score(model, ROWS, request(target))
        assert second.status is OutcomeStatus.ALREADY_SCORED
        assert second.commit == first.commit
        assert self.n_commits(target) == 1
        assert self.read(target).num_rows == ROWS.num_rows

    def test_known_key_with_another_model_is_refused(self, tmp_path: Path, target: Path) -> None:
        self.score(packaged(Third(), tmp_path / "one", inputs=X), ROWS, request(target))
        other = packaged(Third(), tmp_path / "other")
        with pytest.raises(RunKeyConflictError, match=f"model_digest.*{other.digest}"):
            self.score(other, ROWS, request(target))
        assert self.n_commits(target) == 1

    def test_known_key_with_another_source_version_is_refused(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        self.score(model, ROWS, request(target))
        with pytest.raises(RunKeyConflictError, match="input_version"):
            self.score(model, ROWS.slice(1), request(target))
        assert self.n_commits(target) == 1

    def test_long_that_is_no_double_fails_the_job(self, tmp_path: Path, target: Path) -> None:
        rows = pa.table({"id": [0, 1], "x": pa.array([2**53 + 1, None], pa.int64())})
        model = packaged(Third(), tmp_path / "model", inputs=X)
        with pytest.raises(InvalidRowsError, match=str(2**53 + 1)):
            self.score(model, rows, request(target))
        assert self.n_commits(target) == 0

    def test_model_that_raises_fails_the_job_with_its_error(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Refusing(), tmp_path / "model", inputs=X)
        with pytest.raises(PredictionError) as caught:
            self.score(model, ROWS, request(target))
        text = str(caught.value)
        whose = r"rows \d+ to \d+ of partition \d+: model 'contract' version 1 raised"
        assert re.match(f"{whose} PermissionError on a batch of ", text), text
        assert text.endswith("'Permission denied: no scores\\ntoday'")
        assert caught.value.exit_code == 4
        assert self.n_commits(target) == 0

    def test_model_that_answers_too_few_values_fails_the_job(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(OneForAll(), tmp_path / "model", inputs=X)
        with pytest.raises(PredictionError, match="answered 1 values in column 'prediction'"):
            self.score(model, ROWS, request(target), n_partitions=1)
        assert self.n_commits(target) == 0

    @pytest.mark.parametrize(
        ("how", "what"), [("crash", "Segmentation fault"), ("exit", "without a word")]
    )
    def test_model_that_ends_its_worker_fails_the_job_and_is_named_with_its_rows(
        self, how: str, what: str, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Ending(how), tmp_path / "model", inputs=X)
        rows = ROWS.set_column(1, "x", pa.array([1.0, 2.0, 3.0, 4.0, 0.0, 6.0]))
        with pytest.raises(WorkerCrashError, match=f"'contract' version 1, rows 0 to .*{what}"):
            self.score(model, rows, request(target))
        assert self.n_commits(target) == 0

    def test_model_that_hangs_fails_the_job_at_its_deadline(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Ending("hang"), tmp_path / "model", inputs=X)
        rows = ROWS.set_column(1, "x", pa.array([1.0, 2.0, 3.0, 4.0, 0.0, 6.0]))
        limits = BatchLimits(deadline_s=3)
        with pytest.raises(BatchDeadlineError, match=r"rows 0 to .*0:00:03 in predict \("):
            self.score(model, rows, request(target), limits=limits)
        assert self.n_commits(target) == 0

    def test_libraries_take_one_thread_where_a_task_has_one_core(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Greedy(), tmp_path / "model", inputs=X)
        outcome = self.score(model, ROWS, request(target))
        assert {batch.n_threads for batch in outcome.batches} == {1}
        assert set(self.read(target).column("prediction").to_pylist()) == {1.0}

    def test_batch_that_memory_runs_out_on_is_split_and_counted(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(BatchSize(max_rows=2), tmp_path / "model", inputs=X)
        outcome = self.score(model, ROWS, request(target), n_partitions=1)
        outcome.check_books()
        assert outcome.as_metrics()["batches_split"] == 3
        sizes = [row["prediction"] for row in self._predictions(target, "prediction")]
        assert sizes == [n.hex() for n in (1.0, 2.0, 2.0, 1.0, 2.0, 2.0)]

    def test_row_that_memory_does_not_hold_fails_the_job(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(BatchSize(max_rows=0), tmp_path / "model", inputs=X)
        with pytest.raises(ModelTooLargeError, match=r"'contract' version 1 .* batch of 1 row"):
            self.score(model, ROWS, request(target))
        assert self.n_commits(target) == 0

    @pytest.mark.parametrize("kind", ["text", "repeated text", "doubles"])
    def test_wide_rows_reach_the_model_in_batches_of_bounded_bytes(
        self, kind: str, tmp_path: Path, target: Path
    ) -> None:
        rows, inputs, row_bytes = wide_rows(kind)
        model = packaged(BatchSize(), tmp_path / "model", inputs=inputs)
        limits = BatchLimits(max_bytes=25 * row_bytes)
        outcome = self.score(model, rows, request(target), n_partitions=1, limits=limits)
        outcome.check_books()
        sizes = self.read(target).column("prediction").to_pylist()
        assert len(sizes) == rows.num_rows
        assert 1 < max(sizes) <= 25

    def test_null_in_a_key_column_fails_the_job_and_names_it(
        self, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        with pytest.raises(KeyColumnError, match=r"^key column 'n' holds a null.*--where"):
            self.score(model, ROWS, request(target, keys=("id", "n")))
        assert self.n_commits(target) == 0

    def test_rows_outside_of_replace_where_are_refused(self, tmp_path: Path, target: Path) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        asked = request(target, mode=WriteMode.REPLACE, replace_where="id < 3")
        self.score(model, ROWS, asked, where="id < 3")
        later = request(target, mode=WriteMode.REPLACE, replace_where="id < 3", run_key="later")
        with pytest.raises(TargetSchemaError, match="outside replace_where"):
            self.score(model, ROWS, later)
        assert self.n_commits(target) == 1

    def test_first_run_keeps_to_replace_where_too(self, tmp_path: Path, target: Path) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        asked = request(target, mode=WriteMode.REPLACE, replace_where="id < 3")
        with pytest.raises(TargetSchemaError, match="outside replace_where"):
            self.score(model, ROWS, asked)
        assert self.read_count(target) == 0

    def test_columns_of_odd_names_are_read_and_written(self, tmp_path: Path, target: Path) -> None:
        self.check_odd_names(tmp_path, target, key="the-id")

    def check_odd_names(self, tmp_path: Path, target: Path, key: str) -> None:
        """Columns that SQL has to quote are read and written under their names."""
        rows = pa.table(
            {
                key: pa.array([0, 1], pa.int64()),
                "x.y": [3.0, 6.0],
                "tick`s": pa.array([["a"], None], pa.list_(pa.string())),
            }
        )
        model = packaged(Third(), tmp_path / "model", inputs=X)
        asked = request(target, keys=(key,), keep=("x.y", "tick`s"), columns={"x": "x.y"})
        self.score(model, rows, asked)
        written = self.read(target).sort_by(key)
        assert written.column("prediction").to_pylist() == [1.0, 2.0]
        assert written.column("x.y").to_pylist() == [3.0, 6.0]
        assert written.column("tick`s").to_pylist() == [["a"], None]

    def read_count(self, target: Path) -> int:
        """Rows of the score table; 0 where there is none."""
        return self.read(target).num_rows if self.n_commits(target) else 0

    def _scores(self, target: Path) -> list[object]:
        scores: list[object] = self.read(target).sort_by("id")["prediction"].to_pylist()
        return scores

    def _predictions(self, target: Path, *names: str) -> list[dict[str, object]]:
        written = self.read(target)
        order = written.sort_by("id") if "id" in written.column_names else written
        rows: list[dict[str, object]] = order.select(list(names)).to_pylist()
        return [comparable(row) for row in rows]


class DeltaEngineContract(EngineContract):
    """What an engine does beyond `EngineContract` that writes through Delta's own writer."""

    modes = (WriteMode.APPEND, WriteMode.MERGE)

    def test_merged_rows_leave_rejected_ones_as_they_were(
        self, poisoned: ModelFacts, target: Path
    ) -> None:
        first = POISONED.set_column(1, "x", pa.array([float(i) for i in range(8)]))
        asked = replace(quarantine(target, "first"), mode=WriteMode.MERGE)
        self.score(poisoned, first, asked).check_books()
        asked = replace(quarantine(target, "second"), mode=WriteMode.MERGE)
        outcome = self.score(poisoned, POISONED, asked)
        outcome.check_books()
        assert (outcome.n_scored, outcome.n_rejected) == (6, 2)
        scores = self.read(target).sort_by("id")
        assert scores["prediction"].to_pylist()[:2] == [1.0, 1 / 3]
        assert self.rejects(target)["id"].to_pylist() == [1, 4]

    def test_column_whose_name_needs_a_mapping_is_written(
        self, tmp_path: Path, target: Path
    ) -> None:
        self.check_odd_names(tmp_path, target, key="the id")

    def test_rows_with_columns_of_odd_names_are_merged(self, tmp_path: Path, target: Path) -> None:
        key = 'the "id`s'
        model = packaged(Third(), tmp_path / "model", inputs=X)
        for run_key, x in (("first", 3.0), ("second", 6.0)):
            rows = pa.table({key: [7], "x": [x], "a.b": [x]})
            asked = request(target, keys=(key,), keep=("a.b",), run_key=run_key)
            self.score(model, rows, replace(asked, mode=WriteMode.MERGE))
        written = self.read(target).select([key, "a.b", "prediction"])
        assert written.to_pylist() == [{key: 7, "a.b": 6.0, "prediction": 2.0}]

    @pytest.mark.parametrize("is_first", [True, False], ids=["new-table", "known-table"])
    def test_merge_with_doubled_keys_fails_and_names_one(
        self, is_first: bool, tmp_path: Path, target: Path
    ) -> None:
        model = packaged(Third(), tmp_path / "model", inputs=X)
        if not is_first:
            self.score(model, ROWS, request(target, mode=WriteMode.MERGE, run_key="first"))
        before = self.n_commits(target)
        rows = pa.table({"id": [7, 8, 8], "x": [1.0, 2.0, 3.0]})
        with pytest.raises(KeyColumnError, match=r"2 rows .*id.*8"):
            self.score(model, rows, request(target, mode=WriteMode.MERGE, run_key="second"))
        assert self.n_commits(target) == before


def _thirds() -> dict[str, DataType]:
    return {"third": ScalarType.DOUBLE, "sign": ScalarType.STRING}
