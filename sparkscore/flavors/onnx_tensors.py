"""From Arrow batches to the inputs of a graph, and from its outputs to predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparkscore.errors import PackageFormatError, SignatureMismatchError, listed, shown
from sparkscore.flavors.frames import NUMBERS, check_required
from sparkscore.package.datatypes import ArrayType, DataType, MapType, ObjectType, ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.signature import Signature

_WHOLE = (ScalarType.BOOLEAN, ScalarType.INTEGER, ScalarType.LONG)
_DTYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(string)": "object",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(uint8)": "uint8",
}
_ZIP_MAPS = ("seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))")
_KINDS: dict[str, tuple[ScalarType, ...]] = {
    "b": (ScalarType.BOOLEAN,),
    "f": NUMBERS,
    "i": _WHOLE,
    "u": _WHOLE,
    "O": (ScalarType.STRING,),
}
"""Which columns can fill a tensor, by the kind of its NumPy type."""


class NodeArg(Protocol):
    """`onnxruntime.NodeArg`: an input or output; an axis of any length is text or None."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True)
class Feed:
    """How one input of a graph is filled.

    Attributes:
        node: The input.
        dtype: NumPy's name of its type.
        positions: The columns, by their place in the batch.
        columns: Their specs.
        is_matrix: Whether single values stand in a second axis.
    """

    node: NodeArg
    dtype: str
    positions: tuple[int, ...]
    columns: tuple[ColumnSpec, ...]
    is_matrix: bool

    def tensor(self, batch: pa.RecordBatch) -> np.ndarray:
        """The input for a batch: (n_rows,), (n_rows, n_columns), or n_rows stacked lists.

        Raises:
            SignatureMismatchError: A null or a value that the input has no place for.
        """
        if isinstance(self.columns[0].type, ArrayType):
            return self._stacked(batch.column(self.positions[0]))
        if not self.is_matrix:
            return self._values(batch.column(self.positions[0]), self.columns[0])
        matrix = np.empty((batch.num_rows, len(self.positions)), self.dtype)
        for i, (position, column) in enumerate(zip(self.positions, self.columns, strict=True)):
            matrix[:, i] = self._values(batch.column(position), column)
        return matrix

    def _values(self, values: pa.Array, column: ColumnSpec) -> np.ndarray:
        import pyarrow as pa

        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            if column.type in _WHOLE:
                check_required(values, column)
            # Not safe: a double becomes the nearest float, as in NumPy. Null becomes NaN.
            width = pa.float64() if dtype == np.float64 else pa.float32()
            return np.asarray(values.cast(width, safe=False).to_numpy(zero_copy_only=False), dtype)
        if values.null_count:
            raise SignatureMismatchError(
                f"column {column.name!r} is null in {values.null_count} of {len(values)} rows, but "
                f"the graph's input {self.node.name!r} is a {self.node.type}, which has no missing "
                "values; fill them, or filter these rows"
            )
        if dtype.kind == "O":
            return np.asarray(values.to_numpy(zero_copy_only=False))
        if dtype.kind in "iu":
            try:
                values = values.cast(pa.from_numpy_dtype(dtype))
            except pa.ArrowInvalid as exc:
                raise SignatureMismatchError(
                    f"column {column.name!r} does not fit the graph's input {self.node.name!r}, a "
                    f"{self.node.type}: {exc}"
                ) from exc
        return np.asarray(values.to_numpy(zero_copy_only=False))

    def _stacked(self, values: pa.Array) -> np.ndarray:
        """Lists of one length, or lists of such lists, as further axes."""
        import pyarrow.compute as pc

        (column,) = self.columns
        shape, kind = [len(values)], column.type
        while isinstance(kind, ArrayType):
            inner = values.flatten()
            width = len(inner) // max(1, len(values))
            lengths = pc.list_value_length(values)
            if values.null_count or not all(n == width for n in lengths.unique().to_pylist()):
                raise SignatureMismatchError(
                    f"column {column.name!r} has lists of other lengths, or null, but the graph's "
                    f"input {self.node.name!r} is one {self.node.type}; give all of them one length"
                )
            shape.append(width)
            values, kind = inner, kind.items
        # A null inside a list is none of the column's own.
        flat = self._values(values, ColumnSpec(column.name, kind, required=False))
        return flat.reshape(shape)


def plan_feeds(nodes: Sequence[NodeArg], schema: ColumnSchema) -> tuple[Feed, ...]:
    """How the columns of a signature fill the inputs of a graph.

    A single input takes all columns in their order. Several take the columns of their names; of
    columns without names each takes the next one.

    Raises:
        SignatureMismatchError: A column is missing, or its type or width is another than the
            input's.
        PackageFormatError: An input is no tensor of a known type, or its number of rows is fixed.
    """
    if len(nodes) == 1 and not _is_one_of_several(nodes[0], schema):
        return (_feed(nodes[0], tuple(range(len(schema.columns))), schema, alone=True),)
    names = list(schema.names)
    if schema.columns[0].name is None and len(nodes) == len(names):
        return tuple(_feed(node, (i,), schema) for i, node in enumerate(nodes))
    missing = [node.name for node in nodes if node.name not in names]
    if missing:
        raise SignatureMismatchError(
            f"the graph has the inputs {listed(missing)}, but the signature's columns are "
            f"{listed(names)}; save it again with a column for each input, of the same name"
        )
    return tuple(_feed(node, (names.index(node.name),), schema) for node in nodes)


def _is_one_of_several(node: NodeArg, schema: ColumnSchema) -> bool:
    """Whether a single input takes one column, by its name, and leaves the others."""
    takes_one = len(node.shape) == 1 or list(node.shape[1:]) == [1]
    return len(schema.columns) > 1 and node.name in schema.names and takes_one


def _feed(
    node: NodeArg, positions: tuple[int, ...], schema: ColumnSchema, *, alone: bool = False
) -> Feed:
    if node.type not in _DTYPES:
        raise PackageFormatError(
            f"the graph's input {node.name!r} is a {node.type}, which no column fills; known are "
            f"{listed(_DTYPES)}"
        )
    columns = tuple(schema.columns[i] for i in positions)
    feed = Feed(node, _DTYPES[node.type], positions, columns, _is_matrix(node, alone=alone))
    if len(node.shape) and isinstance(node.shape[0], int):
        raise PackageFormatError(
            f"the graph's input {node.name!r} has the fixed shape {shown(list(node.shape))}; "
            "export the model with a first axis of any length"
        )
    _check_types(feed)
    _check_widths(feed)
    return feed


def _is_matrix(node: NodeArg, *, alone: bool) -> bool:
    # A graph may leave the number of axes open, which ONNX Runtime tells as no axis.
    return len(node.shape) > 1 if len(node.shape) else alone


def _check_types(feed: Feed) -> None:
    fitting = _KINDS[np.dtype(feed.dtype).kind]
    for column in feed.columns:
        kind = column.type
        while isinstance(kind, ArrayType):
            kind = kind.items
        if kind not in fitting:
            raise SignatureMismatchError(
                f"the graph's input {feed.node.name!r} is a {feed.node.type}, but column "
                f"{column.name!r} is {_text_of(column.type)}; declare it as {' or '.join(fitting)}"
            )


def _check_widths(feed: Feed) -> None:
    node, shape = feed.node, list(feed.node.shape)
    nested = [column for column in feed.columns if isinstance(column.type, ArrayType)]
    if nested and len(feed.columns) > 1:
        raise SignatureMismatchError(
            f"the graph's input {node.name!r} takes {len(feed.columns)} columns, and column "
            f"{nested[0].name!r} holds lists; declare that one alone"
        )
    if nested or not shape:
        return
    n_columns = len(feed.columns)
    fits = n_columns == 1 if len(shape) == 1 else shape[1] == n_columns or type(shape[1]) is not int
    if not fits or len(shape) > 2:  # noqa: PLR2004 - single values have two axes at most
        raise SignatureMismatchError(
            f"the graph's input {node.name!r} has the shape {shown(shape)}, but the signature "
            f"declares {n_columns} columns of single values for it; save it again with a signature "
            "of what it takes"
        )


def _text_of(kind: DataType) -> str:
    return str(kind) if isinstance(kind, ScalarType) else type(kind).__name__


class Answers:
    """Turns the outputs of a graph into the columns that a signature declares.

    Columns are found by the names of outputs, else by their order; a column for each class may
    stand for an output of that width.

    Args:
        nodes: The graph's outputs.
        signature: Of the model; without outputs all are answered.

    Raises:
        PackageFormatError: An output is nothing that a column can be made of.
    """

    def __init__(self, nodes: Sequence[NodeArg], signature: Signature) -> None:
        for node in nodes:
            if node.type not in (*_DTYPES, *_ZIP_MAPS):
                raise PackageFormatError(
                    f"the graph's output {node.name!r} is a {node.type}, of which no column can be "
                    "made; export the model with tensors as outputs"
                )
        outputs = signature.outputs
        columns = outputs.columns if isinstance(outputs, ColumnSchema) else ()
        self._names = [column.name for column in columns if column.name is not None]
        have = [node.name for node in nodes]
        is_by_name = bool(self._names) and all(name in have for name in self._names)
        self.asked: list[str] = self._names if is_by_name else have
        """Names of the outputs that the graph is asked for."""
        self._types: list[DataType | None] = [None] * len(self.asked)
        if len(columns) == len(self.asked):
            self._types = [column.type for column in columns]

    def columns(self, values: Sequence[object]) -> object:
        """The one output as it is, or a mapping of column to values.

        Args:
            values: Of the outputs in `asked`: arrays, or lists of mappings of class to value.
        """
        parts = [_plain(value, kind) for value, kind in zip(values, self._types, strict=True)]
        if len(parts) == 1:
            return parts[0]
        if len(parts) == len(self._names):
            return dict(zip(self._names, parts, strict=True))
        spread = [column for part in parts for column in _split(part)]
        if len(spread) == len(self._names):
            return dict(zip(self._names, spread, strict=True))
        return dict(zip(self.asked, parts, strict=True))


def _plain(value: object, declared: DataType | None) -> object:
    if isinstance(value, list):
        return _of_classes(value, declared)
    array = np.asarray(value)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.shape[1:] == (1,) and not isinstance(declared, ArrayType):
        return array[:, 0]
    return array


def _of_classes(rows: Sequence[Mapping[object, float]], declared: DataType | None) -> object:
    """What ZipMap answers, without its classes unless the signature names them."""
    if isinstance(declared, ObjectType):
        return [{str(name): value for name, value in row.items()} for row in rows]
    if isinstance(declared, MapType):
        return [[(str(name), value) for name, value in row.items()] for row in rows]
    return np.array([list(row.values()) for row in rows], np.float32)


def _split(part: object) -> list[object]:
    if isinstance(part, np.ndarray) and part.ndim == 2:  # noqa: PLR2004 - a matrix has two axes
        return list(part.T)
    return [part]
