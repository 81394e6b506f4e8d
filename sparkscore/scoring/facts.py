"""What is known of a model and of a source before they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from sparkscore.errors import SignatureMismatchError
from sparkscore.package.schema import ColumnSchema, TensorSchema, TensorSpec
from sparkscore.package.signature import Signature, arrow_type
from sparkscore.package.tensors import tensor_columns, tensor_type
from sparkscore.scoring.casts import can_hold_missing

if TYPE_CHECKING:
    from sparkscore.scoring.features import Features

MALFORMED_COLUMN = "__sparkscore_malformed"
"""The column of a source that says what is wrong with a row; null: nothing. See `Binding.guards`"""
MESSAGE_PREFIX = "kafka_"
"""How columns are called that a message has whatever its value is."""


@dataclass(frozen=True)
class ModelFacts:
    """What a plan needs to know of a pinned model; its verified package lies in `folder`.

    `predict` is the function that is asked in the place of the packaged one, and the signature
    then declares its answer; None: the packaged one.
    """

    name: str
    version: int | None
    digest: str
    uri: str
    folder: Path
    signature: Signature
    predict: str | None = None

    @property
    def label(self) -> str:
        """How messages call the model."""
        return repr(self.name) + (f" version {self.version}" if self.version is not None else "")

    def as_facts(self) -> dict[str, object]:
        """Which model this is, as plain values."""
        return {
            "name": self.name,
            "version": self.version,
            "uri": self.uri,
            "digest": self.digest,
        }

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
    lay at the same place. `since` is the version after which the rows are new, or `start`; empty
    where all rows are read. `features` are computed from its rows, and `columns` are those after
    that; `joined` names the versions of joined tables.
    """

    uri: str
    format: str
    version: str
    columns: tuple[SourceColumn, ...]
    table_id: str = ""
    where: str | None = None
    since: str = ""
    features: Features | None = None
    joined: str = ""

    def column(self, name: str) -> SourceColumn | None:
        """The column of exactly this name, or None."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class InputColumn:
    """One column of a model's input, as batches have it.

    Attributes:
        type: Its Arrow type; null, or null inside of it, takes any.
        required: Whether the source must have it.
        needs_value: Whether a null makes its row invalid.
        rows: The type of a column of lists that may fill this one and those after it, `n_columns`
            in all, one row a list; only the first of a matrix has it.
    """

    type: pa.DataType
    required: bool
    needs_value: bool
    rows: pa.DataType | None = None
    n_columns: int = 1


def input_columns(model: ModelFacts) -> Mapping[str, InputColumn]:
    """The model's input columns in order, by name; unnamed ones are called "0", "1", ...

    A tensor is the columns that stand for it; see `package.tensors`.

    Raises:
        SignatureMismatchError: A tensor is of a type that Arrow lacks, or its rows are not its
            first axis.
    """
    schema = model.signature.inputs
    found: dict[str, InputColumn] = {}
    if isinstance(schema, ColumnSchema):
        for name, spec in zip(schema.names, schema.columns, strict=True):
            kind = arrow_type(spec.type, takes_any=True)
            needs_value = spec.required and not can_hold_missing(kind)
            found[name] = InputColumn(kind, spec.required, needs_value)
        return found
    for tensor in schema.tensors:
        columns = tensor_columns(tensor)
        for i, name in enumerate(columns.names):
            rows, n = (columns.rows, len(columns.names)) if i == 0 else (None, 1)
            found[name] = InputColumn(columns.type, True, columns.needs_value, rows, n)
    return found


def prediction_schema(signature: Signature) -> pa.Schema:
    """The prediction columns that a signature declares, all nullable.

    A single unnamed output is called `prediction`. A tensor of shape (-1,) is a scalar column,
    one of shape (-1, k, ...) a column of (nested) lists; several have names.

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
    if isinstance(outputs, TensorSchema) and outputs.tensors:
        return pa.schema([_tensor_field(tensor) for tensor in outputs.tensors])
    raise SignatureMismatchError(
        "the model's signature declares no output, so the score table would have no declared "
        "prediction column; package it with a signature that includes predictions"
    )


def _tensor_field(tensor: TensorSpec) -> pa.Field:
    data_type = tensor_type(tensor.dtype)
    for _ in tensor.shape[1:]:
        data_type = pa.list_(data_type)
    return pa.field(tensor.name or "prediction", data_type)


def _default_name(index: int, specs: Sequence[object]) -> str:
    return "prediction" if len(specs) == 1 else f"prediction_{index}"
