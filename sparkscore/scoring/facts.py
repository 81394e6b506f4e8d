"""What is known of a model and of a source before they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from sparkscore.errors import SignatureMismatchError
from sparkscore.package.signature import ColumnSchema, Signature, TensorSchema, arrow_type


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


def _default_name(index: int, specs: Sequence[object]) -> str:
    return "prediction" if len(specs) == 1 else f"prediction_{index}"
