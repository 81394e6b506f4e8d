"""Comparing a model's signature with a table's schema: how columns are filled, and what differs.

Everything here is pure: no table is opened and no package is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

from sparkscore.errors import ConfigError, SignatureMismatchError, listed, nearest
from sparkscore.scoring.casts import Cast, find_cast, is_list, settled
from sparkscore.scoring.facts import (
    MALFORMED_COLUMN,
    InputColumn,
    ModelFacts,
    SourceColumn,
    SourceTable,
    input_columns,
)


@dataclass(frozen=True)
class Binding:
    """How one input column of the model is filled from the source.

    `source` is None for an optional column that the source lacks: it is all null. `cast` is None
    where the source's type is not known before the batch comes. `spread` names the model's columns
    that the items of its lists fill, one each; empty where it fills `model_column` as it is.
    `guards` marks one that fills nothing: where its text is not null, it says why the row is to be
    rejected.
    """

    model_column: str
    source: SourceColumn | None
    type: pa.DataType
    cast: Cast | None
    needs_value: bool
    spread: tuple[str, ...] = ()
    guards: bool = False


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
        model: Its inputs are columns or tensors.
        source: The table to read.
        columns: Model column -> source column, where the names differ.

    Raises:
        SignatureMismatchError: The signature has inputs that no column can stand for.
        ConfigError: `columns` maps a column that the model does not have.
    """
    inputs = input_columns(model)
    unknown = [name for name in columns if name not in inputs]
    if unknown:
        raise ConfigError(
            f"columns maps {listed(unknown)}, but model {model.name!r} has no such input"
            f"{nearest(unknown[0], inputs)}; its inputs are {listed(inputs)}"
        )
    bindings = _guards(source)
    differences: list[Difference] = []
    used: list[str] = []
    names = list(inputs)
    while names:
        name = names.pop(0)
        wanted, source_name = inputs[name], columns.get(name, name)
        column = source.column(source_name)
        n_others = wanted.n_columns - 1
        if _is_filled_by_rows(wanted, column):
            assert column is not None
            _check_unmapped(names[:n_others], columns, source_name)
            binding, found = _judged(rows_binding(name, column, wanted), column, source_name)
            del names[:n_others]
        elif column is None and n_others:
            binding, found = None, [_missing_matrix(name, wanted, source, source_name)]
            del names[:n_others]
        else:
            binding, found = _bind(name, wanted, source, source_name)
        differences.extend(found)
        if column is not None:
            used.append(source_name)
        if binding is not None:
            bindings.append(binding)
    differences.extend(_order_and_extra(used, source))
    return tuple(bindings), tuple(differences)


def _guards(source: SourceTable) -> list[Binding]:
    column = source.column(MALFORMED_COLUMN)
    if column is None:
        return []
    return [Binding(column.name, column, pa.string(), Cast.EXACT, needs_value=False, guards=True)]


def fitted(
    model: ModelFacts, source: SourceTable, columns: Mapping[str, str]
) -> tuple[tuple[Binding, ...], tuple[Difference, ...]]:
    """What `compare` finds, where no difference is fatal.

    Raises:
        SignatureMismatchError: A needed column is missing or of a wrong type; all of them are
            listed with what is there instead.
        ConfigError: `columns` maps a column that the model does not have.
    """
    bindings, differences = compare(model, source, columns)
    fatal = [difference for difference in differences if difference.kind.is_fatal]
    if fatal:
        raise SignatureMismatchError(mismatch_text(model, source, fatal))
    return bindings, differences


def rows_binding(name: str, source: SourceColumn, wanted: InputColumn) -> Binding:
    """How one column of lists fills all columns of an unnamed matrix, one row a list."""
    names = (name, *(str(i) for i in range(1, wanted.n_columns)))
    assert wanted.rows is not None
    cast = None if source.type is None else find_cast(source.type, wanted.rows)
    return Binding(name, source, wanted.rows, cast, needs_value=True, spread=names)


def mismatch_text(model: ModelFacts, source: SourceTable, fatal: Sequence[Difference]) -> str:
    """What a SignatureMismatchError says of `fatal` differences."""
    lines = "".join(f"\n  {item.kind.value:<11} {item.column}: {item.detail}" for item in fatal)
    return (
        f"model {model.label} does not fit {source.format} source {source.uri!r}:{lines}\n"
        "Map names with columns (--column MODEL=SOURCE), cast in a view, or register a version "
        "with another signature."
    )


def _is_filled_by_rows(wanted: InputColumn, column: SourceColumn | None) -> bool:
    """Whether a column of lists stands where the first column of a matrix is looked for."""
    has_lists = column is not None and column.type is not None and is_list(column.type)
    return has_lists and wanted.rows is not None


def _check_unmapped(names: Sequence[str], columns: Mapping[str, str], source_name: str) -> None:
    mapped = [name for name in names if name in columns]
    if mapped:
        raise ConfigError(
            f"columns maps {listed(mapped)}, but {source_name!r} holds lists, which fill all "
            "columns of the matrix; map the first one alone, or each to a column of numbers"
        )


def _bind(
    name: str, wanted: InputColumn, source: SourceTable, source_name: str
) -> tuple[Binding | None, list[Difference]]:
    column = source.column(source_name)
    if column is None:
        return _bind_absent(name, wanted, source, source_name)
    kind = wanted.type if column.type is None else settled(wanted.type, column.type)
    cast = None if column.type is None else find_cast(column.type, kind)
    binding = Binding(name, column, kind, cast, wanted.needs_value)
    return _judged(binding, column, source_name)


def _judged(
    binding: Binding, column: SourceColumn, source_name: str
) -> tuple[Binding | None, list[Difference]]:
    """The binding, or None where there is no cast, and what there is to say of it."""
    name, cast = binding.model_column, binding.cast
    found: list[Difference] = []
    if source_name != name:
        found.append(Difference(DifferenceKind.RENAMED, name, f"filled from {source_name!r}"))
    types = f"{column.type_name} for {binding.type}"
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
    return binding, found


def _bind_absent(
    name: str, wanted: InputColumn, source: SourceTable, source_name: str
) -> tuple[Binding | None, list[Difference]]:
    if not wanted.required:
        absent = Difference(DifferenceKind.ABSENT, name, f"optional {wanted.type}; all null")
        return Binding(name, None, wanted.type, Cast.EXACT, needs_value=False), [absent]
    near = nearest(source_name, [column.name for column in source.columns])
    detail = f"no column {source_name!r}{near} for {wanted.type}"
    return None, [Difference(DifferenceKind.MISSING, name, detail)]


def _missing_matrix(
    name: str, wanted: InputColumn, source: SourceTable, source_name: str
) -> Difference:
    last = wanted.n_columns - 1
    near = nearest(source_name, [column.name for column in source.columns])
    detail = (
        f"no column {source_name!r}{near}; the model takes a matrix without names: fill its "
        f"columns '0' to '{last}' ({wanted.type}) one by one (--column 0=SOURCE ...), or all of "
        f"them from one column of lists of {wanted.n_columns} (--column 0=LISTS)"
    )
    return Difference(DifferenceKind.MISSING, name, detail)


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
        if column.name not in (*used, MALFORMED_COLUMN)
    )
    return found
