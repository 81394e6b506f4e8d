"""Comparing a model's signature with a table's schema: how columns are filled, and what differs.

Everything here is pure: no table is opened and no package is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from sparkscore.errors import ConfigError, listed, nearest
from sparkscore.scoring.casts import Cast, can_hold_missing, find_cast
from sparkscore.scoring.facts import ModelFacts, SourceColumn, SourceTable, input_columns


class InvalidRows(StrEnum):
    """What happens to rows that cannot be given to the model without changing a value."""

    FAIL = "fail"
    REJECT = "reject"


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


def mismatch_text(model: ModelFacts, source: SourceTable, fatal: Sequence[Difference]) -> str:
    """What a SignatureMismatchError says of `fatal` differences."""
    lines = "".join(f"\n  {item.kind.value:<11} {item.column}: {item.detail}" for item in fatal)
    return (
        f"model {model.label} does not fit {source.format} source {source.uri!r}:{lines}\n"
        "Map names with columns (--column MODEL=SOURCE), cast in a view, or register a version "
        "with another signature."
    )


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
            Difference(
                DifferenceKind.CHECKED, name, f"{types}; a row that no such value equals is invalid"
            )
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
