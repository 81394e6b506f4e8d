"""From a model's signature and a table's schema to a plan, or to a refusal that says why.

Everything here is pure: no table is opened and no package is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import pyarrow as pa

from sparkscore.errors import ConfigError, listed, nearest, shown
from sparkscore.names import are_one_place, same_place
from sparkscore.package.params import given_params, plain_params
from sparkscore.scoring.checks import Checks
from sparkscore.scoring.comparison import (
    Binding,
    Difference,
    fitted,
)
from sparkscore.scoring.duplicates import Duplicates
from sparkscore.scoring.facts import (
    MALFORMED_COLUMN,
    MESSAGE_PREFIX,
    ModelFacts,
    SourceColumn,
    SourceTable,
)
from sparkscore.scoring.incremental import range_key
from sparkscore.scoring.predicate import PinnedValue, pinned_values
from sparkscore.scoring.rejects import (
    INLINE,
    REASON_COLUMNS,
    InvalidRows,
    NanAnswers,
    RejectBudget,
)

if TYPE_CHECKING:
    from sparkscore.scoring.panel import Panel
    from sparkscore.scoring.shadow import Shadow

RECORD_COLUMNS = pa.schema(
    [
        pa.field("model_name", pa.string()),
        pa.field("model_version", pa.string()),
        pa.field("model_digest", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("scored_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""What every score row says of its origin, after keys, kept columns and predictions."""


def model_record(model: ModelFacts) -> dict[str, str | None]:
    """What a score row says of its model."""
    version = None if model.version is None else str(model.version)
    return {"model_name": model.name, "model_version": version, "model_digest": model.digest}


class WriteMode(StrEnum):
    """How a run's rows enter the target; one commit in each case."""

    APPEND = "append"
    REPLACE = "replace"
    MERGE = "merge"


@dataclass(frozen=True)
class ScoringRequest:
    """What a user asked for, parsed but not yet compared with anything.

    Attributes:
        job: Name of the logical job; part of the identity of a run.
        target: URI of the score table.
        run_key: Name of this logical run; None lets the plan derive one from the inputs.
        keys: Columns that identify a row; never null; at least one for merge.
        keep: Further source columns to carry into the score table.
        columns: Model column -> source column, where the names differ.
        params: What the model's predict is given beside rows, by name; not yet checked.
        on_nan: Whether a prediction that is NaN is an answer.
        rejects: With on_invalid quarantine: URI of the table of rejected rows, or `inline`; None:
            the target's own name and `_rejects`.
        max_rejects: How many rows of the run may be rejected, or stay without a prediction.
        max_partition_rejects: The same of each of the target's partitions.
        duplicates: What becomes of rows that share a key; None: as the mode has it.
        order_by: With duplicates first or last: the column that orders the rows of a key.
        checks: What scores have to be before they are published.
        accept_checks: Whether those that fail are published.
        sketched: Columns, read or predicted, of which the outcome says how they are spread.
    """

    job: str
    target: str
    run_key: str | None = None
    keys: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    mode: WriteMode = WriteMode.APPEND
    replace_where: str | None = None
    partition_by: tuple[str, ...] = ()
    on_invalid: InvalidRows = InvalidRows.FAIL
    on_nan: NanAnswers = NanAnswers.KEEP
    rejects: str | None = None
    max_rejects: RejectBudget = field(default_factory=RejectBudget)
    max_partition_rejects: RejectBudget = field(default_factory=RejectBudget)
    duplicates: Duplicates | None = None
    order_by: str | None = None
    checks: Checks = field(default_factory=Checks)
    accept_checks: bool = False
    sketched: tuple[str, ...] = ()

    @property
    def rejects_uri(self) -> str | None:
        """The table of rejected rows; None: the job has none."""
        if self.on_invalid is not InvalidRows.QUARANTINE or self.rejects == INLINE:
            return None
        return self.rejects or rejects_beside(self.target)

    @property
    def is_inline(self) -> bool:
        """Whether each row of the score table says why it has no prediction."""
        return self.on_invalid is InvalidRows.QUARANTINE and self.rejects == INLINE

    @property
    def keeps_rejected(self) -> bool:
        """Whether rows without a prediction stand in the score table."""
        return self.on_invalid is InvalidRows.NULL or self.is_inline

    @property
    def refuses_duplicates(self) -> bool:
        """Whether rows that share a key stop the job; a merge could keep only one of them."""
        default = Duplicates.FAIL if self.mode is WriteMode.MERGE else Duplicates.KEEP
        return (self.duplicates or default) is Duplicates.FAIL


@dataclass(frozen=True)
class RunIdentity:
    """What makes two attempts the same logical run, and what they must agree on.

    Attributes:
        app_id: Delta application id: one per job, target and run key.
        run_key: The key as given, or derived from the inputs.
        fingerprint: What a second attempt must share: input, version, filter, model digest, mode,
            given params and function, and what decides which rows and columns are written.
        txn_version: Which of the commits under this id it is; a job has one, a stream one a batch,
            each with a higher number than those before.
    """

    app_id: str
    run_key: str
    fingerprint: Mapping[str, str]
    txn_version: int = 1


@dataclass(frozen=True)
class ScoringPlan:
    """Everything an engine and a sink need; made before any task starts.

    Attributes:
        model: Who answers for a row, where there are several models (`panel`); `bindings`,
            `differences` and `predictions` are then those of all.
        params: Those that were asked for, each of its declared type; a model has defaults beside.
        shadow: Where the scores of a model go that answers in the shadow; None: there is none.
        is_replay: Whether the source is rows that an earlier run rejected: they come beside what
            that run replaced.
    """

    model: ModelFacts
    source: SourceTable
    request: ScoringRequest
    bindings: tuple[Binding, ...]
    differences: tuple[Difference, ...]
    carried: tuple[SourceColumn, ...]
    constants: tuple[PinnedValue, ...]
    predictions: pa.Schema
    params: Mapping[str, object]
    identity: RunIdentity
    panel: Panel | None = None
    shadow: Shadow | None = None
    is_replay: bool = False

    @property
    def reason_columns(self) -> pa.Schema:
        """What a row of the score table says of why it has no prediction."""
        return REASON_COLUMNS if self.request.is_inline else pa.schema([])

    @property
    def answers(self) -> pa.Schema:
        """What workers say of a row; of several models more than stands in one row of the table."""
        return self.predictions if self.panel is None else self.panel.answers

    @property
    def model_column(self) -> pa.Schema:
        """What tells a row's model from others, where each has rows of its own."""
        is_long = self.panel is not None and self.panel.is_long
        return pa.schema([pa.field("model", pa.string())] if is_long else [])

    @property
    def table_keys(self) -> tuple[str, ...]:
        """Columns of the score table that are never null, and by which a merge matches rows."""
        keys = self.request.keys
        return (*keys, *self.model_column.names) if keys else ()

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Names of the score table's columns, in order."""
        return (
            *(column.name for column in self.carried),
            *(constant.column for constant in self.constants),
            *self.model_column.names,
            *self.predictions.names,
            *self.reason_columns.names,
            *RECORD_COLUMNS.names,
        )


def plan_scoring(
    model: ModelFacts, source: SourceTable, request: ScoringRequest, panel: Panel | None = None
) -> ScoringPlan:
    """A plan for scoring `source` with `model`.

    Args:
        model: Who answers for a row.
        source: The table to read.
        request: What was asked for.
        panel: All models, where there are several; see `scoring.panel.plan_panel`.

    Raises:
        SignatureMismatchError: A needed column is missing or of a wrong type; all of them are
            listed with what is there instead.
        ConfigError: Keys, kept columns, mode and replace_where do not fit together or the source,
            or a param is not one that the model declares.
    """
    if panel is None:
        bindings, differences = fitted(model, source, request.columns)
        predictions = model.predictions
        params = given_params(model.signature.params, request.params)
    else:
        bindings, differences = panel.bindings, panel.differences
        predictions, params = panel.predictions, panel.params
    _check_mode(request)
    request.checks.check_columns(predictions)
    pinned = pinned_values(request.replace_where) if request.replace_where else ()
    carried = _carried(source, request, pinned)
    constants = tuple(value for value in pinned if _same_column(value, source) is None)
    plan = ScoringPlan(
        model=model,
        source=source,
        request=request,
        bindings=bindings,
        differences=differences,
        carried=carried,
        constants=constants,
        predictions=predictions,
        params=params,
        identity=identify(model, source, request, panel),
        panel=panel,
    )
    _check_rejects(request, panel)
    _check_malformed(request, source)
    _check_unique(plan.score_columns)
    _check_partitions(plan)
    return plan


def score_schema(plan: ScoringPlan) -> pa.Schema:
    """The score table's columns and types."""
    fields = [pa.field(column.name, column.type) for column in plan.carried]
    sql_types = {
        "string": pa.string(),
        "date": pa.date32(),
        "int": pa.int32(),
        "bigint": pa.int64(),
    }
    fields += [pa.field(value.column, sql_types[value.type]) for value in plan.constants]
    return pa.schema(
        [*fields, *plan.model_column, *plan.predictions, *plan.reason_columns, *RECORD_COLUMNS]
    )


def identify(
    model: ModelFacts, source: SourceTable, request: ScoringRequest, panel: Panel | None = None
) -> RunIdentity:
    """The identity of a logical run: one application id per job, target and run key.

    Without a run key, one is derived from the inputs, so that the same command on the same input
    version is the same run; of what is new, from where it begins. Params that are not given are no
    part of it.
    """
    given = given_params(model.signature.params, request.params) if panel is None else panel.params
    params = plain_params(given)
    fingerprint = {
        "input": same_place(source.uri),
        "input_id": source.table_id,
        "input_version": source.version,
        "where": source.where or "",
        "model_digest": model.digest,
        "mode": request.mode.value,
        "replace_where": request.replace_where or "",
        "columns": _digest_of(sorted(request.columns.items()))[:16] if request.columns else "",
        "params": json.dumps(params) if params else "",
        "keys": ", ".join(request.keys),
        "keep": ", ".join(request.keep),
        "on_invalid": request.on_invalid.value,
    }
    if model.predict is not None:
        # Only then: runs from before there was a choice are still the same runs.
        fingerprint["predict"] = model.predict
    if panel is not None and not panel.is_one:
        fingerprint["panel"] = panel.spec.fingerprint
    if request.rejects is not None:
        fingerprint["rejects"] = request.rejects
    if request.on_nan is not NanAnswers.KEEP:
        fingerprint["on_nan"] = request.on_nan.value
    if request.duplicates is not None:
        fingerprint["duplicates"] = f"{request.duplicates} {request.order_by or ''}".strip()
    if source.features is not None:
        fingerprint["features"] = source.features.digest
    if source.joined:
        fingerprint["joined"] = source.joined
    if source.since:
        fingerprint["since"] = source.since
    derived = f"inputs-{_digest_of(sorted(fingerprint.items()))[:16]}"
    run_key = request.run_key or (range_key(source) if source.since else derived)
    return run_identity(request.job, request.target, run_key, fingerprint)


def run_identity(
    job: str, target: str, run_key: str, fingerprint: Mapping[str, str]
) -> RunIdentity:
    """The logical run of a job, target and key that shares `fingerprint` with its attempts."""
    app_id = "sparkscore-" + _digest_of([job, same_place(target), run_key])[:40]
    return RunIdentity(app_id=app_id, run_key=run_key, fingerprint=fingerprint)


def rejects_beside(target: str) -> str:
    """Where the rejected rows of a score table are kept, unless another place is named."""
    return table_beside(target, "rejects")


def table_beside(target: str, what: str) -> str:
    """The table that is called as the target, and after that what it holds."""
    if target.endswith("`"):  # A quoted name of the catalog.
        return f"{target[:-1]}_{what}`"
    return f"{target.rstrip('/')}_{what}"


def _check_rejects(request: ScoringRequest, panel: Panel | None) -> None:
    is_long = panel is not None and panel.is_long
    if is_long and (request.keeps_rejected or request.max_partition_rejects != RejectBudget()):
        raise ConfigError(
            "where each model has rows of its own (models_as long), rows without a prediction are "
            "in no partition of the score table; take on_invalid quarantine with a rejects table, "
            "and no max_partition_rejects"
        )
    if request.rejects is not None and request.on_invalid is not InvalidRows.QUARANTINE:
        raise ConfigError(
            f"rejects (--rejects) goes with on_invalid 'quarantine', but that is "
            f"{request.on_invalid.value!r}"
        )
    uri = request.rejects_uri
    if uri is not None and are_one_place(uri, request.target):
        raise ConfigError(
            f"rejects (--rejects) names the score table itself, {shown(uri)}; name another table, "
            "or 'inline' to keep rejected rows in the score table with their reasons"
        )


def _check_malformed(request: ScoringRequest, source: SourceTable) -> None:
    """Refuse to keep rows in the score table whose keys would be null."""
    of_values = [key for key in request.keys if not key.startswith(MESSAGE_PREFIX)]
    if of_values and request.keeps_rejected and source.column(MALFORMED_COLUMN) is not None:
        raise ConfigError(
            f"a malformed message has no {listed(of_values)}, and so no key in the score table; "
            "take on_invalid 'quarantine' with a rejects table, or as keys what every message has: "
            "--key kafka_partition --key kafka_offset"
        )


def _check_mode(request: ScoringRequest) -> None:
    if request.mode is WriteMode.REPLACE and not request.replace_where:
        raise ConfigError(
            "mode 'replace' needs replace_where (--replace-where), the predicate of the rows to be "
            "replaced, such as \"score_date = '2013-10-01'\""
        )
    if request.mode is not WriteMode.REPLACE and request.replace_where:
        raise ConfigError(
            f"replace_where goes with mode 'replace', but the mode is {request.mode.value!r}"
        )
    if request.mode is WriteMode.MERGE and not request.keys:
        raise ConfigError("mode 'merge' needs key columns (--key) to match rows by")


def _carried(
    source: SourceTable, request: ScoringRequest, pinned: Sequence[PinnedValue]
) -> tuple[SourceColumn, ...]:
    in_source = filter(None, (_same_column(value, source) for value in pinned))
    wanted = dict.fromkeys([*request.keys, *request.keep, *in_source])
    known = [column.name for column in source.columns]
    carried: list[SourceColumn] = []
    for name in wanted:
        column = source.column(name)
        if column is None:
            noun = "key" if name in request.keys else "keep"
            raise ConfigError(
                f"{noun} column {name!r} is not in {source.uri!r}{nearest(name, known)}; "
                f"its columns are {listed(known)}"
            )
        if column.type is None:
            raise ConfigError(
                f"column {name!r} of {source.uri!r} is {column.type_name}, which has no Arrow type "
                "and cannot be carried into the score table; cast it in a view, or leave it out"
            )
        carried.append(column)
    return tuple(carried)


def _same_column(value: PinnedValue, source: SourceTable) -> str | None:
    """The source's name of a pinned column; as in SQL, case does not tell columns apart."""
    wanted = value.column.casefold()
    return next((c.name for c in source.columns if c.name.casefold() == wanted), None)


def _check_unique(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.casefold(), name)
        if twin is not name:
            raise ConfigError(
                f"the score table would have {shown(twin)} and {shown(name)}, which Delta does not "
                "tell apart; rename the source's column or the model's output"
            )


def _check_partitions(plan: ScoringPlan) -> None:
    possible = [
        *(column.name for column in plan.carried),
        *(value.column for value in plan.constants),
        *plan.model_column.names,
    ]
    for name in plan.request.partition_by:
        if name not in possible:
            raise ConfigError(
                f"partition column {name!r} is not written{nearest(name, possible)}; "
                f"keep it (--keep) or take one of {listed(possible)}"
            )


def _digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
