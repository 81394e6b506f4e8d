"""Several models in one scan: what a Python worker does of a panel.

Imported by Python workers where a job has one: no Spark, nothing of stores or settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import (
    InvalidRowsError,
    ModelError,
    PredictionError,
    SparkscoreError,
    shown,
)
from sparkscore.scoring.batch import ScoredBatch
from sparkscore.scoring.canary import Split
from sparkscore.scoring.ensemble import Combine, combined
from sparkscore.scoring.outcome import ModelCounts, added_models
from sparkscore.scoring.rejects import (
    RejectCode,
    counted,
    first_each,
    moved,
    reasons,
    together,
)
from sparkscore.scoring.shadow import compared
from sparkscore.spark.node_cache import loaded_digests
from sparkscore.spark.task_slot import TaskSlot
from sparkscore.spark.worker import ScoringTask, batch_report, score_rows

Report = dict[str, Any]
Scored = tuple[ScoredBatch, Report]

_ADDED = ("convert_s", "predict_s", "load_s", "n_splits", "n_not_finite")
"""What of the reports of several models of one batch is added up."""
_UNROUTED = -1
_FATAL = (
    "it has ended a Python worker (a crash, os._exit, or no answer within the deadline), and was "
    "not asked any more"
)


class Answerer(Protocol):
    """What answers for rows; picklable."""

    def score(self, batch: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """Answers to all rows of a batch, and the report, which tells of each model by itself."""
        ...


@dataclass(frozen=True)
class MemberTask:
    """One model of a panel, and what it is called there."""

    label: str
    task: ScoringTask

    def score(self, batch: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """The model's own answers."""
        scored, report = score_rows(self.task, batch, slot)
        load_s = float(str(report["load_s"]))
        counts = ModelCounts(
            n_rows=batch.num_rows,
            n_rejected=scored.n_rejected,
            predict_s=scored.predict_s,
            convert_s=scored.convert_s,
            load_s=load_s,
            n_loads=int(load_s > 0),
        )
        return scored, report | {"models": {self.label: counts}}


@dataclass(frozen=True)
class ChallengerTask(MemberTask):
    """A model that answers beside others, and whose failures are its own."""

    _refusals: list[str] = field(default_factory=list, compare=False)

    def answers(self, batch: pa.RecordBatch, slot: TaskSlot) -> tuple[pa.StructArray, ModelCounts]:
        """Its answers, null where it has none, and what became of the rows; it raises nothing."""
        found = self.tried(batch, slot)
        if isinstance(found, ModelCounts):
            answers = pa.nulls(batch.num_rows, pa.struct(list(self.task.batch.predictions)))
            return answers, found
        scored, report = found
        return scored.predictions, report["models"][self.label]

    def tried(self, batch: pa.RecordBatch, slot: TaskSlot) -> Scored | ModelCounts:
        """Its answers; where it fails, what is to be told of that.

        Where it cannot be loaded, that is not tried again by this Spark task. Where it has ended a
        worker, it is not asked again on this node, so that Spark's next try of the task succeeds.
        """
        if self._refusals:
            return _failed(batch, self._refusals[0])
        try:
            with slot.asking(self.label) as has_ended_one:
                if has_ended_one:
                    raise ModelError(_FATAL)
                return self._scored(batch, slot)
        except (PredictionError, InvalidRowsError) as exc:
            return _failed(batch, str(exc))
        except SparkscoreError as exc:
            self._refusals.append(str(exc))
            return _failed(batch, self._refusals[0])

    def _scored(self, batch: pa.RecordBatch, slot: TaskSlot) -> Scored:
        try:
            return self.score(batch, slot)
        except SparkscoreError:
            raise
        except (Exception, SystemExit) as exc:  # loading runs foreign code: it may raise anything
            raise ModelError(f"it cannot be loaded: {type(exc).__name__}: {exc}") from exc


@dataclass(frozen=True)
class EnsembleTask:
    """One answer out of those of all members; a row that one of them rejects has none."""

    members: tuple[MemberTask, ...]
    combine: Combine
    weights: tuple[float, ...]

    def score(self, batch: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """All members' answers as one."""
        each = [member.score(batch, slot) for member in self.members]
        answers = combined([scored.predictions for scored, _ in each], self.combine, self.weights)
        return _together(each, answers, first_each(scored.rejects for scored, _ in each), batch)


@dataclass(frozen=True)
class GroupedTask(ABC):
    """Each row's answer from one of several models.

    Attributes:
        record: What a row says of each member's model, in the order of the last of `answers`.
        answers: The members' predictions, and what a row says of its model.
    """

    members: tuple[MemberTask, ...]
    record: tuple[tuple[str | None, ...], ...]
    answers: pa.Schema

    def score(self, batch: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """The rows grouped by model, scored, and put back into their order.

        Raises:
            InvalidRowsError: A row has no model, and the policy is to fail.
        """
        places = self.places_of(batch)
        order = np.argsort(places, kind="stable")
        is_grouped = bool((order[1:] > order[:-1]).all())
        grouped = batch if is_grouped else batch.take(pa.array(order))
        found, starts = np.unique(places[order], return_index=True)
        ends = [*starts[1:], len(places)]
        groups = {
            int(place): grouped.slice(start, end - start)
            for place, start, end in zip(found, starts, ends, strict=True)
        }
        each = {
            place: self.of_group(place, groups[place], slot) for place in self._loaded_first(groups)
        }
        in_order = [each[place] for place in groups]
        rejects = together(
            scored.rejects and moved(scored.rejects, pa.array(order[start:end]))
            for (scored, _), start, end in zip(in_order, starts, ends, strict=True)
        )
        answers = pa.concat_arrays([scored.predictions for scored, _ in in_order])
        if not is_grouped:
            answers = answers.take(pa.array(np.argsort(order, kind="stable")))
        return _together(in_order, answers, rejects, batch)

    @abstractmethod
    def places_of(self, batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
        """The place of each row's model among the members."""

    def of_group(self, place: int, rows: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """The answers of one model, and on each row which model it is."""
        return self._named(place, self.members[place].score(rows, slot))

    def _named(self, place: int, found: Scored) -> Scored:
        """The answers of a model with what its rows say of it."""
        scored, report = found
        predictions = scored.predictions
        told = [
            pa.repeat(pa.scalar(text, pa.string()), len(predictions)) for text in self.record[place]
        ]
        answers = pa.StructArray.from_arrays(
            [*_fields(predictions), *told], fields=list(self.answers), mask=_null_mask(predictions)
        )
        return replace(scored, predictions=answers), report

    def _loaded_first(self, groups: Mapping[int, object]) -> list[int]:
        """The places in an order that loads few models anew.

        In one that is always the same, a cache that holds fewer than all models would have let go
        of each when its next rows come.
        """
        loaded = loaded_digests()

        def is_new(place: int) -> bool:
            return place != _UNROUTED and self.members[place].task.digest not in loaded

        return sorted(groups, key=is_new)


@dataclass(frozen=True)
class RoutesTask(GroupedTask):
    """Each row's answer from the model that its route names.

    Attributes:
        column: The source column.
        places: Its value as text -> place among the members.
        default: Place of the model of all other rows; None: they have none.
        fails: Whether a row without a model fails the batch; else it is rejected.
    """

    column: str
    places: Mapping[str, int]
    default: int | None
    fails: bool

    def places_of(self, batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
        """The place of each row's model; `_UNROUTED` where it has none."""
        column = batch.column(self.column)
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        none = _UNROUTED if self.default is None else self.default
        texts = encoded.dictionary.cast(pa.string()).to_pylist()
        by_code = np.array([*(self.places.get(text, none) for text in texts), none])
        codes = encoded.indices.cast(pa.int64()).fill_null(len(texts)).to_numpy()
        places: np.ndarray[Any, Any] = by_code[codes]
        if self.fails and (places == _UNROUTED).any():
            raise InvalidRowsError(self._unrouted_text(column, places))
        return places

    def of_group(self, place: int, rows: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """The answers of one model; rows of none are rejected."""
        if place == _UNROUTED:
            answers = pa.nulls(rows.num_rows, pa.struct(list(self.answers)))
            places = pa.array(np.arange(rows.num_rows))
            rejects = reasons(places, RejectCode.NO_ROUTE, self.column, "no route names a model")
            scored = ScoredBatch(answers, rejects, 0.0, 0.0)
            return scored, batch_report(rows, scored, slot)
        return super().of_group(place, rows, slot)

    def _unrouted_text(self, column: pa.Array, places: np.ndarray[Any, Any]) -> str:
        is_unrouted = places == _UNROUTED
        first = column[int(is_unrouted.argmax())].as_py()
        return (
            f"column {self.column!r} is {shown(first)}, for which routes.models names no model "
            f"({int(is_unrouted.sum())} such rows in a batch of {len(places)}); add it there, name "
            "a model for all others as routes.default, leave such rows out (routes.default: "
            "reject), or filter them (--where)"
        )


@dataclass(frozen=True)
class SplitTask(GroupedTask):
    """A share of entities goes to a canary; where that fails, the champion answers for it.

    Attributes:
        split: Which entities.
        canary: The second of the members.
    """

    split: Split
    canary: ChallengerTask

    def places_of(self, batch: pa.RecordBatch) -> np.ndarray[Any, Any]:
        """0 for the champion's rows, 1 for the canary's."""
        return self.split.places_of(batch)

    def of_group(self, place: int, rows: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """The answers of one of the two models, and on each row which one it is."""
        if place == 0:
            return super().of_group(place, rows, slot)
        found = self.canary.tried(rows, slot)
        if not isinstance(found, ModelCounts):
            return self._named(place, found)
        scored, report = super().of_group(0, rows, slot)
        return scored, report | {"models": report["models"] | {self.canary.label: found}}


@dataclass(frozen=True)
class PanelTask(ScoringTask):
    """What a worker needs of several models; as a task, it is that of the first of them.

    `batch.predictions` are the answers of all: the head's columns, then a struct a challenger.

    Attributes:
        compares: Whether it is told how the challengers' answers differ from the head's.
    """

    head: Answerer | None = None
    challengers: tuple[ChallengerTask, ...] = ()
    compares: bool = False

    def score(self, batch: pa.RecordBatch, slot: TaskSlot) -> Scored:
        """The head's answers and the challengers'; a row without one of the head is rejected."""
        assert self.head is not None
        scored, report = self.head.score(batch, slot)
        if not self.challengers:
            return scored, report
        beside = [challenger.answers(batch, slot) for challenger in self.challengers]
        answers = pa.StructArray.from_arrays(
            [*_fields(scored.predictions), *(answers for answers, _ in beside)],
            fields=list(self.batch.predictions),
            mask=_null_mask(scored.predictions),
        )
        counts = {
            challenger.label: self._compared(scored.predictions, answers, counts)
            for challenger, (answers, counts) in zip(self.challengers, beside, strict=True)
        }
        return replace(scored, predictions=answers), report | {
            "models": report["models"] | counts,
            **{
                name: report[name] + sum(getattr(one, name) for one in counts.values())
                for name in ("convert_s", "predict_s", "load_s")
            },
        }

    def _compared(
        self, head: pa.StructArray, beside: pa.StructArray, counts: ModelCounts
    ) -> ModelCounts:
        if not self.compares:
            return counts
        found = compared(head, beside)
        return counts._replace(
            n_compared=found.n_rows,
            n_different=found.n_different,
            difference=found.difference,
            absolute=found.absolute,
        )


def _together(
    each: Sequence[Scored],
    answers: pa.StructArray,
    rejects: pa.RecordBatch | None,
    batch: pa.RecordBatch,
) -> Scored:
    """The answers of several models as those of one, and one report."""
    reports = [report for _, report in each]
    scored = replace(each[0][0], predictions=answers, rejects=rejects)
    return scored, {
        **reports[-1],
        **{name: sum(report[name] for report in reports) for name in _ADDED},
        "n_rows": batch.num_rows,
        "n_bytes": batch.nbytes,
        "n_rejected": scored.n_rejected,
        "reasons": [] if rejects is None else counted(rejects),
        "n_loads": max(report["n_loads"] for report in reports),
        "runtime": ", ".join(sorted({report["runtime"] for report in reports})),
        "unknown_levels": {},
        "models": added_models(report.get("models", {}) for report in reports),
    }


def _failed(batch: pa.RecordBatch, why: str) -> ModelCounts:
    return ModelCounts(n_rows=batch.num_rows, n_failed=batch.num_rows, failure=shown(why))


def _fields(struct: pa.StructArray) -> list[pa.Array]:
    """The fields as they are, whatever is null of the struct itself."""
    return [struct.field(i) for i in range(struct.type.num_fields)]


def _null_mask(struct: pa.StructArray) -> pa.Array | None:
    return pc.is_null(struct) if struct.null_count else None
