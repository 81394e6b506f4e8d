"""Rows that get no prediction: the policy for them, their reasons, and how many a run may have.

Everything here is pure and is imported by Python workers.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import ConfigError, RejectBudgetError, shown

INLINE = "inline"
"""What stands for a rejects table's URI where rejected rows stay in the score table."""

REASON_COLUMNS = pa.schema(
    [
        pa.field("reject_code", pa.string()),
        pa.field("reject_column", pa.string()),
        pa.field("reject_message", pa.string()),
    ]
)
"""Why a row has no prediction; all null where it has one."""

REASONS = pa.schema([pa.field("row", pa.int64()), *REASON_COLUMNS])
"""One line a rejected row of a batch, in the order of the rows; `row` is its place in the batch."""

_MAX_REASONS_TOLD = 3
_LIMIT = re.compile(r"(?P<rows>\d+)|(?P<percent>\d+(?:\.\d+)?)%")


class InvalidRows(StrEnum):
    """What happens to rows that the model cannot score."""

    FAIL = "fail"
    NULL = "null"
    QUARANTINE = "quarantine"


class NanAnswers(StrEnum):
    """Whether a prediction that is NaN is an answer, or makes its row one without."""

    KEEP = "keep"
    REJECT = "reject"


class RejectCode(StrEnum):
    """Why a row is rejected; stable, since people filter by it."""

    MALFORMED = "MALFORMED"
    NULL = "NULL_VALUE"
    UNFIT = "UNFIT_VALUE"
    NO_TEXT = "NOT_UTF8"
    RAISED = "MODEL_RAISED"
    ANSWER = "ANSWER_INVALID"
    NAN = "ANSWER_NAN"
    NO_ROUTE = "NO_ROUTE"


class ReasonCount(NamedTuple):
    """Rows that share a reason.

    Attributes:
        column: The source column or prediction that it is about; None: none in particular.
        n_rows: How many.
        message: That of the first of them.
    """

    code: str
    column: str | None
    n_rows: int
    message: str


def setting_aside(policy: str) -> InvalidRows:
    """The policy where no table is written: rows without a prediction are left out, or fail."""
    return InvalidRows.FAIL if policy == InvalidRows.FAIL else InvalidRows.QUARANTINE


def reasons(
    rows: pa.Array, code: RejectCode, column: str | None, messages: Sequence[str] | str
) -> pa.RecordBatch:
    """Reasons of one code; see REASONS.

    Args:
        rows: Places in the batch, in order.
        code: Of all of them.
        column: That all of them are about.
        messages: One a row, or one for all.
    """
    n = len(rows)
    texts = pa.repeat(messages, n) if isinstance(messages, str) else pa.array(messages, pa.string())
    return pa.RecordBatch.from_arrays(
        [
            rows.cast(pa.int64()),
            pa.repeat(pa.scalar(code.value, pa.string()), n),
            pa.repeat(pa.scalar(column, pa.string()), n),
            texts,
        ],
        schema=REASONS,
    )


def together(each: Iterable[pa.RecordBatch | None]) -> pa.RecordBatch | None:
    """All reasons in the order of their rows; None where there are none."""
    found = [one for one in each if one is not None and one.num_rows]
    if not found:
        return None
    table = pa.Table.from_batches(found)
    return table.sort_by("row").combine_chunks().to_batches()[0] if len(found) > 1 else found[0]


def first_each(each: Iterable[pa.RecordBatch | None]) -> pa.RecordBatch | None:
    """One reason a row, the first of several for the same rows; None where there are none."""
    found = together(each)
    if found is None:
        return None
    is_first = [True, *(a != b for a, b in pairwise(found["row"].to_pylist()))]
    return found.filter(pa.array(is_first))


def moved(found: pa.RecordBatch, places: pa.Array) -> pa.RecordBatch:
    """The same reasons, of the rows that stand at `places[row]` in a larger batch."""
    return found.set_column(0, REASONS.field(0), places.take(found["row"]).cast(pa.int64()))


def is_rejected(found: pa.RecordBatch, n_rows: int) -> pa.Array:
    """A mask of n_rows that is true for rejected rows."""
    return pc.is_in(pa.array(range(n_rows), pa.int64()), value_set=found["row"])


def reasons_by_row(found: pa.RecordBatch | None, n_rows: int) -> list[pa.Array]:
    """The reason columns of a batch of n_rows; null where a row is not rejected."""
    if found is None:
        return [pa.nulls(n_rows, pa.string()) for _ in REASON_COLUMNS]
    places = pc.index_in(pa.array(range(n_rows), pa.int64()), value_set=found["row"])
    return [found[name].take(places) for name in REASON_COLUMNS.names]


def counted(found: pa.RecordBatch) -> list[ReasonCount]:
    """How many rows share a code and a column."""
    groups = pa.table(found).group_by(["reject_code", "reject_column"], use_threads=False)
    counts = groups.aggregate([("row", "count"), ("reject_message", "first")])
    return [
        ReasonCount(
            row["reject_code"], row["reject_column"], row["row_count"], row["reject_message_first"]
        )
        for row in counts.to_pylist()
    ]


def added_reasons(each: Iterable[Iterable[ReasonCount]]) -> list[ReasonCount]:
    """The counts of several batches as one, the most frequent reason first."""
    total: dict[tuple[str, str | None], ReasonCount] = {}
    for counts in each:
        for code, column, n_rows, message in counts:
            before = total.get((code, column), ReasonCount(code, column, 0, message))
            total[code, column] = before._replace(n_rows=before.n_rows + n_rows)
    return sorted(total.values(), key=lambda one: (-one.n_rows, one.code, one.column or ""))


def reasons_text(counts: Sequence[ReasonCount]) -> str:
    """The most frequent reasons in one line."""
    told = [
        f"{one.n_rows} x {one.code}{f' in {one.column!r}' if one.column else ''} "
        f"({shown(one.message)})"
        for one in counts[:_MAX_REASONS_TOLD]
    ]
    more = len(counts) - len(told)
    return "; ".join(told) + (f"; and {more} other reasons" if more else "")


@dataclass(frozen=True)
class RejectBudget:
    """How many rows may be rejected; None: any number.

    Attributes:
        max_rows: At most so many.
        max_share: At most this share of the rows that were read.
    """

    max_rows: int | None = None
    max_share: float | None = None

    @classmethod
    def parse(cls, text: str, name: str) -> RejectBudget:
        """The budget that a text such as `100`, `0.5%` or `100,0.5%` means.

        Args:
            text: What was given.
            name: What it was given for, in the error.

        Raises:
            ConfigError: It is none.
        """
        max_rows: int | None = None
        max_share: float | None = None
        for part in text.split(","):
            found = _LIMIT.fullmatch(part.strip())
            if found is None or (found["percent"] and float(found["percent"]) > 100):  # noqa: PLR2004 - percent
                raise ConfigError(
                    f"{name} {shown(text)} is no number of rows or share of them; give such as "
                    "100, 0.5% or both: 100,0.5%"
                )
            if found["rows"]:
                max_rows = int(found["rows"])
            else:
                max_share = float(found["percent"]) / 100
        return cls(max_rows, max_share)

    def excess(self, n_rejected: int, n_read: int) -> str | None:
        """Which bound so many rejected rows pass, in words; None: neither."""
        if self.max_rows is not None and n_rejected > self.max_rows:
            return f"more than {self.max_rows}"
        if self.max_share is not None and n_rejected > self.max_share * n_read:
            return f"more than {self.max_share:.6%}".rstrip("0%").rstrip(".") + "%"
        return None


def over_budget(
    what: str, excess: str, counts: Sequence[ReasonCount], flag: str = "--max-rejects"
) -> RejectBudgetError:
    """The error of a run that rejected too many rows.

    Args:
        what: Rows and where, such as "12 of 100 rows of 'day=1'".
        excess: What `RejectBudget.excess` said.
        counts: Their reasons.
        flag: The option that admits more.
    """
    return RejectBudgetError(
        f"{what} got no prediction, {excess}, so nothing was committed; why: "
        f"{reasons_text(counts)}. Mend or filter such rows (--where), or admit more of them "
        f"({flag})"
    )


@dataclass
class RejectedRows:
    """The rejected rows that one task has met so far.

    Attributes:
        max_rows: More of them end the task; None: any number.
    """

    max_rows: int | None
    reasons: list[ReasonCount] = field(default_factory=list)

    def count(self, found: pa.RecordBatch) -> None:
        """Add those of a batch.

        Raises:
            RejectBudgetError: They are more than the run may have.
        """
        self.reasons = added_reasons([self.reasons, counted(found)])
        n_rows = sum(one.n_rows for one in self.reasons)
        excess = RejectBudget(self.max_rows).excess(n_rows, 0)
        if excess is not None:
            raise over_budget(f"{n_rows} rows of one task", excess, self.reasons)


@dataclass(frozen=True)
class RejectCounts:
    """Rows of a run, or of what is known of it.

    Attributes:
        n_read: All of them.
        n_rejected: Those without a prediction.
        reasons: Why.
        partitions: For each partition of the score table: its rows, and those without a prediction.
    """

    n_read: int
    n_rejected: int
    reasons: Sequence[ReasonCount]
    partitions: Mapping[str, tuple[int, int]]


def check_budgets(found: RejectCounts, run: RejectBudget, partition: RejectBudget) -> None:
    """Compare the rows without a prediction with what a run and each partition may have.

    Raises:
        RejectBudgetError: There are more.
    """
    excess = run.excess(found.n_rejected, found.n_read)
    if excess is not None:
        what = f"{found.n_rejected} of {found.n_read} rows"
        raise over_budget(what, excess, found.reasons)
    for name, (n_read, n_rejected) in found.partitions.items():
        excess = partition.excess(n_rejected, n_read)
        if excess is not None:
            what = f"{n_rejected} of {n_read} rows of partition {name}"
            raise over_budget(what, excess, found.reasons, "--max-partition-rejects")


def json_rows(batch: pa.RecordBatch) -> list[str]:
    """Each row as one JSON object whose values come back as they were, by their types.

    What JSON has no number for is a text: NaN and infinities, decimals; dates and times are in
    ISO 8601, bytes in base64, and maps are objects.
    """
    columns = [_plain_column(column) for column in batch.columns]
    names = batch.schema.names
    return [
        json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False)
        for values in (zip(*columns, strict=True) if columns else [()] * batch.num_rows)
    ]


def _plain_column(column: pa.Array) -> list[object]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return [_plain(value, column.type) for value in _values(column)]


def _values(column: pa.Array) -> Iterator[object]:
    for value in column:
        try:
            yield value.as_py()
        except UnicodeDecodeError as exc:  # No text, so none of JSON either.
            yield exc.object.decode("utf-8", "backslashreplace")


def _plain(value: object, kind: pa.DataType) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else _not_finite(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dt.date):  # A datetime is one too.
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {f.name: _plain(value[f.name], f.type) for f in kind}
    if isinstance(value, list):
        if pa.types.is_map(kind):
            return {str(_plain(k, kind.key_type)): _plain(v, kind.item_type) for k, v in value}
        return [_plain(item, kind.value_type) for item in value]
    return value


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
