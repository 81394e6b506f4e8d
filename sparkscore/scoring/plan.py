"""From a model's signature and a table's schema to a plan, or to a refusal that says why.

Everything here is pure: no table is opened and no package is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pyarrow as pa

from sparkscore.errors import (
    ConfigError,
    SignatureMismatchError,
    listed,
    nearest,
    shown,
)
from sparkscore.package.signature import ColumnSchema, Signature, TensorSchema, arrow_type
from sparkscore.scoring.casts import Cast, can_hold_missing, find_cast
from sparkscore.scoring.predicate import PinnedValue, pinned_values

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


class WriteMode(StrEnum):
    """How a run's rows enter the target; one commit in each case."""

    APPEND = "append"
    REPLACE = "replace"
    MERGE = "merge"


class InvalidRows(StrEnum):
    """What happens to rows that cannot be given to the model without changing a value."""

    FAIL = "fail"
    REJECT = "reject"


@dataclass(frozen=True)
class ModelFacts:
    """What a plan needs to know of a pinned model; its verified package lies in `folder`."""

    name: str
    version: int | None
    digest: str
    uri: str
    folder: Path
    signature: Signature

    @property
    def label(self) -> str:
        """How messages call the model."""
        return repr(self.name) + (f" version {self.version}" if self.version is not None else "")

    @property
    def predictions(self) -> pa.Schema:
        """The prediction columns that the signature declares; see `prediction_schema`."""
        return prediction_schema(self.signature)


@dataclass(frozen=True)
class SourceColumn:
    """One column of a source; `type` is None where Arrow has no equal of `type_name`."""

    name: str
    type: pa.DataType | None
    type_name: str


@dataclass(frozen=True)
class SourceTable:
    """A source as it was opened: which table, which version, which columns.

    `version` pins the rows: a Delta version, or a digest over the files of another format; empty
    for a DataFrame, whose rows nobody can pin. `table_id` tells a table from an earlier one that
    lay at the same place.
    """

    uri: str
    format: str
    version: str
    columns: tuple[SourceColumn, ...]
    table_id: str = ""
    where: str | None = None

    def column(self, name: str) -> SourceColumn | None:
        """The column of exactly this name, or None."""
        return next((column for column in self.columns if column.name == name), None)


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
    """

    job: str
    target: str
    run_key: str | None = None
    keys: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    mode: WriteMode = WriteMode.APPEND
    replace_where: str | None = None
    partition_by: tuple[str, ...] = ()
    on_invalid: InvalidRows = InvalidRows.FAIL


@dataclass(frozen=True)
class Binding:
    """How one input column of the model is filled from the source.

    `source` is None for an optional column that the source lacks: it is all null. `cast` is None
    where the source's type is not known before the batch comes.
    """

    model_column: str
    source: SourceColumn | None
    type: pa.DataType
    cast: Cast | None
    needs_value: bool

    @property
    def may_reject(self) -> bool:
        """Whether a value of the source can make its row invalid."""
        return self.needs_value or self.cast in (Cast.CHECKED, None)


class DifferenceKind(StrEnum):
    """In which way source and signature differ."""

    MISSING = "missing"
    ABSENT = "absent"
    EXTRA = "extra"
    REORDERED = "reordered"
    RENAMED = "renamed"
    WIDENED = "widened"
    CHECKED = "checked"
    WRONG_TYPE = "wrong type"

    @property
    def is_fatal(self) -> bool:
        """Whether the job is refused because of it."""
        return self in (DifferenceKind.MISSING, DifferenceKind.WRONG_TYPE)


@dataclass(frozen=True)
class Difference:
    """One line of the comparison between a signature and a table."""

    kind: DifferenceKind
    column: str
    detail: str


@dataclass(frozen=True)
class RunIdentity:
    """What makes two attempts the same logical run, and what they must agree on.

    Attributes:
        app_id: Delta application id: one per job, target and run key.
        run_key: The key as given, or derived from the inputs.
        fingerprint: What a second attempt must share: input, version, filter, model digest, mode,
            and what decides which rows and columns are written.
    """

    app_id: str
    run_key: str
    fingerprint: Mapping[str, str]


@dataclass(frozen=True)
class ScoringPlan:
    """Everything an engine and a sink need; made before any task starts."""

    model: ModelFacts
    source: SourceTable
    request: ScoringRequest
    bindings: tuple[Binding, ...]
    differences: tuple[Difference, ...]
    carried: tuple[SourceColumn, ...]
    constants: tuple[PinnedValue, ...]
    predictions: pa.Schema
    identity: RunIdentity

    @property
    def may_reject(self) -> bool:
        """Whether rows can be invalid at all."""
        return any(binding.may_reject for binding in self.bindings)

    @property
    def score_columns(self) -> tuple[str, ...]:
        """Names of the score table's columns, in order."""
        return (
            *(column.name for column in self.carried),
            *(constant.column for constant in self.constants),
            *self.predictions.names,
            *RECORD_COLUMNS.names,
        )


def plan_scoring(model: ModelFacts, source: SourceTable, request: ScoringRequest) -> ScoringPlan:
    """A plan for scoring `source` with `model`.

    Raises:
        SignatureMismatchError: A needed column is missing or of a wrong type; all of them are
            listed with what is there instead.
        ConfigError: Keys, kept columns, mode and replace_where do not fit together or the source.
    """
    bindings, differences = compare(model, source, request.columns)
    fatal = [difference for difference in differences if difference.kind.is_fatal]
    if fatal:
        raise SignatureMismatchError(mismatch_text(model, source, fatal))
    _check_mode(request)
    pinned = pinned_values(request.replace_where) if request.replace_where else ()
    carried = _carried(source, request, pinned)
    constants = tuple(value for value in pinned if _same_column(value, source) is None)
    predictions = model.predictions
    _check_unique(
        [
            *(column.name for column in carried),
            *(value.column for value in constants),
            *predictions.names,
            *RECORD_COLUMNS.names,
        ]
    )
    _check_partitions(request, carried, constants)
    return ScoringPlan(
        model=model,
        source=source,
        request=request,
        bindings=bindings,
        differences=differences,
        carried=carried,
        constants=constants,
        predictions=predictions,
        identity=identify(model, source, request),
    )


def compare(
    model: ModelFacts, source: SourceTable, columns: Mapping[str, str]
) -> tuple[tuple[Binding, ...], tuple[Difference, ...]]:
    """Bindings for the model's inputs and every difference on the way, fatal ones among them.

    Args:
        model: Its signature must have named input columns.
        source: The table to read.
        columns: Model column -> source column, where the names differ.

    Raises:
        SignatureMismatchError: The signature has no columns to bind by name.
        ConfigError: `columns` maps a column that the model does not have.
    """
    inputs = input_columns(model)
    unknown = [name for name in columns if name not in inputs]
    if unknown:
        raise ConfigError(
            f"columns maps {listed(unknown)}, but model {model.name!r} has no such input"
            f"{nearest(unknown[0], inputs)}; its inputs are {listed(inputs)}"
        )
    bindings: list[Binding] = []
    differences: list[Difference] = []
    for name, (wanted, required) in inputs.items():
        binding, found = _bind(name, wanted, required, source, columns.get(name, name))
        differences.extend(found)
        if binding is not None:
            bindings.append(binding)
    asked = (columns.get(name, name) for name in inputs)
    used = [name for name in asked if source.column(name) is not None]
    differences.extend(_order_and_extra(used, source))
    return tuple(bindings), tuple(differences)


def input_columns(model: ModelFacts) -> Mapping[str, tuple[pa.DataType, bool]]:
    """The model's input columns in order: name -> (Arrow type, required).

    Raises:
        SignatureMismatchError: The signature has tensors or unnamed columns, which no table
            column can be bound to.
    """
    schema = model.signature.inputs
    if not isinstance(schema, ColumnSchema) or any(not spec.name for spec in schema.columns):
        raise SignatureMismatchError(
            f"model {model.name!r} has no named input columns in its signature, so no table column "
            "can be bound to it; package it with a signature made from a data frame"
        )
    return {str(spec.name): (arrow_type(spec.type), spec.required) for spec in schema.columns}


def prediction_schema(signature: Signature) -> pa.Schema:
    """The prediction columns that a signature declares, all nullable.

    A single unnamed output is called `prediction`. A tensor of shape (-1,) is a scalar column,
    one of shape (-1, k, ...) a column of (nested) lists.

    Raises:
        SignatureMismatchError: The signature declares no output.
    """
    outputs = signature.outputs
    if isinstance(outputs, ColumnSchema) and outputs.columns:
        names = [
            spec.name or _default_name(i, outputs.columns) for i, spec in enumerate(outputs.columns)
        ]
        return pa.schema(
            [pa.field(n, arrow_type(s.type)) for n, s in zip(names, outputs.columns, strict=True)]
        )
    if isinstance(outputs, TensorSchema) and len(outputs.tensors) == 1:
        tensor = outputs.tensors[0]
        data_type = arrow_type_of_tensor(tensor.dtype)
        for _ in tensor.shape[1:]:
            data_type = pa.list_(data_type)
        return pa.schema([pa.field(tensor.name or "prediction", data_type)])
    raise SignatureMismatchError(
        "the model's signature declares no output, so the score table would have no declared "
        "prediction column; package it with a signature that includes predictions"
    )


def arrow_type_of_tensor(dtype: str) -> pa.DataType:
    """The Arrow type for a numpy dtype name of a tensor spec.

    Raises:
        SignatureMismatchError: Arrow has none for it.
    """
    if dtype.startswith(("str", "object", "<U", "U")):
        return pa.string()
    try:
        return pa.from_numpy_dtype(dtype)
    except (TypeError, ValueError, pa.ArrowNotImplementedError) as exc:
        raise SignatureMismatchError(
            f"a tensor of dtype {dtype!r} has no column type; declare the output as a column"
        ) from exc


def identify(model: ModelFacts, source: SourceTable, request: ScoringRequest) -> RunIdentity:
    """The identity of a logical run: one application id per job, target and run key.

    Without a run key, one is derived from the inputs, so that the same command on the same input
    version is the same run.
    """
    fingerprint = {
        "input": source.uri,
        "input_id": source.table_id,
        "input_version": source.version,
        "where": source.where or "",
        "model_digest": model.digest,
        "mode": request.mode.value,
        "replace_where": request.replace_where or "",
        "columns": _digest_of(sorted(request.columns.items()))[:16] if request.columns else "",
        "keys": ", ".join(request.keys),
        "keep": ", ".join(request.keep),
        "on_invalid": request.on_invalid.value,
    }
    run_key = request.run_key or f"inputs-{_digest_of(sorted(fingerprint.items()))[:16]}"
    app_id = "sparkscore-" + _digest_of([request.job, request.target, run_key])[:40]
    return RunIdentity(app_id=app_id, run_key=run_key, fingerprint=fingerprint)


def _bind(
    name: str, wanted: pa.DataType, required: bool, source: SourceTable, source_name: str
) -> tuple[Binding | None, list[Difference]]:
    column = source.column(source_name)
    if column is None:
        return _bind_absent(name, wanted, required, source, source_name)
    found: list[Difference] = []
    if source_name != name:
        found.append(Difference(DifferenceKind.RENAMED, name, f"filled from {source_name!r}"))
    cast = None if column.type is None else find_cast(column.type, wanted)
    types = f"{column.type_name} for {wanted}"
    if cast is None:
        found.append(Difference(DifferenceKind.WRONG_TYPE, name, f"{source_name!r} is {types}"))
        return None, found
    if cast is Cast.WIDENED:
        found.append(Difference(DifferenceKind.WIDENED, name, types))
    if cast is Cast.CHECKED:
        found.append(
            Difference(DifferenceKind.CHECKED, name, f"{types}; beyond ±2**53 a row is invalid")
        )
    needs_value = required and not can_hold_missing(wanted)
    return Binding(name, column, wanted, cast, needs_value), found


def _bind_absent(
    name: str, wanted: pa.DataType, required: bool, source: SourceTable, source_name: str
) -> tuple[Binding | None, list[Difference]]:
    if not required:
        absent = Difference(DifferenceKind.ABSENT, name, f"optional {wanted}; all null")
        return Binding(name, None, wanted, Cast.EXACT, needs_value=False), [absent]
    near = nearest(source_name, [column.name for column in source.columns])
    detail = f"no column {source_name!r}{near} for {wanted}"
    return None, [Difference(DifferenceKind.MISSING, name, detail)]


def _order_and_extra(used: Sequence[str], source: SourceTable) -> list[Difference]:
    found: list[Difference] = []
    positions = {column.name: i for i, column in enumerate(source.columns)}
    order = [positions[name] for name in used]
    if order != sorted(order):
        found.append(
            Difference(DifferenceKind.REORDERED, "*", "bound by name; the table's order is another")
        )
    found.extend(
        Difference(
            DifferenceKind.EXTRA, column.name, f"{column.type_name}; the model does not see it"
        )
        for column in source.columns
        if column.name not in used
    )
    return found


def mismatch_text(model: ModelFacts, source: SourceTable, fatal: Sequence[Difference]) -> str:
    """What a SignatureMismatchError says of `fatal` differences."""
    lines = "".join(f"\n  {item.kind.value:<11} {item.column}: {item.detail}" for item in fatal)
    return (
        f"model {model.label} does not fit {source.format} source {source.uri!r}:{lines}\n"
        "Map names with columns (--column MODEL=SOURCE), cast in a view, or register a version "
        "with another signature."
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


def _check_partitions(
    request: ScoringRequest, carried: Sequence[SourceColumn], constants: Sequence[PinnedValue]
) -> None:
    possible = [*(column.name for column in carried), *(value.column for value in constants)]
    for name in request.partition_by:
        if name not in possible:
            raise ConfigError(
                f"partition column {name!r} is not written{nearest(name, possible)}; "
                f"keep it (--keep) or take one of {listed(possible)}"
            )


def _default_name(index: int, specs: Sequence[object]) -> str:
    return "prediction" if len(specs) == 1 else f"prediction_{index}"


def _digest_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
