"""Columns, tensors and params of a signature, and their JSON form (MLflow's)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparkscore.errors import PackageFormatError, listed, shown
from sparkscore.package.datatypes import (
    DataType,
    ObjectType,
    ScalarType,
    dump_type,
    is_required,
    parse_type,
)

_MAX_LENGTH = 2**31 - 1


@dataclass(frozen=True)
class ColumnSpec:
    """One column; `name` is None where a model was fitted on data without names."""

    name: str | None
    type: DataType
    required: bool = True


@dataclass(frozen=True)
class TensorSpec:
    """One array; `dtype` is NumPy's name of it, -1 in `shape` means any length."""

    name: str | None
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ParamSpec:
    """One setting of a prediction call; `default` is plain JSON, `shape` is None or (-1,)."""

    name: str
    type: ScalarType | ObjectType
    default: object
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ColumnSchema:
    """Columns in the order the model wants them; all named, or none."""

    columns: tuple[ColumnSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """One name a column; unnamed ones are called by their position, from "0"."""
        return tuple(
            str(i) if column.name is None else column.name for i, column in enumerate(self.columns)
        )


@dataclass(frozen=True)
class TensorSchema:
    """Tensors; all named, or a single one without a name."""

    tensors: tuple[TensorSpec, ...]


Schema = ColumnSchema | TensorSchema


def parse_schema(text: str, where: str) -> Schema:
    """The columns or tensors that a JSON string lists.

    Args:
        text: JSON as it stands in MLmodel.
        where: `inputs` or `outputs`, for the message.

    Raises:
        PackageFormatError: Broken JSON, an unknown type, an empty, doubled or missing name, or
            columns and tensors in one list; names the position.
    """
    nodes = _nodes(text, where)
    if not nodes:
        raise PackageFormatError(f"signature {where} lists nothing; leave it out or name a column")
    kinds = {node.get("type") == "tensor" for node in nodes}
    if kinds == {True, False}:
        raise PackageFormatError(f"signature {where} mixes columns and tensors; use one kind")
    places = [f"signature {where}[{i}]" for i in range(len(nodes))]
    if [node.get("name") for node in nodes] == list(range(len(nodes))):
        # MLflow's names of a frame without any.
        nodes = [{key: node[key] for key in node if key != "name"} for node in nodes]
    names = [_name(node, place) for node, place in zip(nodes, places, strict=True)]
    _check_names(names, where)
    pairs = list(zip(names, nodes, places, strict=True))
    if kinds == {True}:
        if len(nodes) > 1 and None in names:
            raise PackageFormatError(f"signature {where}: several tensors need a name each")
        return TensorSchema(tuple(_tensor(name, node, place) for name, node, place in pairs))
    return ColumnSchema(
        tuple(
            ColumnSpec(name, parse_type(node, place), is_required(node, place))
            for name, node, place in pairs
        )
    )


def dump_schema(schema: Schema) -> str:
    """The JSON string that `parse_schema` reads, as MLflow writes it."""
    if isinstance(schema, TensorSchema):
        return json.dumps([_tensor_node(tensor) for tensor in schema.tensors])
    return json.dumps(
        [
            {**dump_type(c.type), **_name_node(c.name), "required": c.required}
            for c in schema.columns
        ]
    )


def parse_params(text: str) -> tuple[ParamSpec, ...]:
    """The params that a JSON string lists.

    Raises:
        PackageFormatError: Broken JSON, an unknown type, or an empty or doubled name.
    """
    nodes = _nodes(text, "params")
    params = tuple(_param(node, f"signature params[{i}]") for i, node in enumerate(nodes))
    _check_names([param.name for param in params], "params")
    return params


def dump_params(params: Iterable[ParamSpec]) -> str:
    """The JSON string that `parse_params` reads, as MLflow writes it."""
    return json.dumps(
        [
            {
                "name": param.name,
                "default": param.default,
                "shape": None if param.shape is None else list(param.shape),
                **dump_type(param.type),
            }
            for param in params
        ]
    )


def _nodes(text: str, where: str) -> Sequence[Mapping[str, object]]:
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as exc:
        raise PackageFormatError(
            f"signature {where} is no JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}"
        ) from exc
    except RecursionError as exc:
        raise PackageFormatError(f"signature {where} is nested too deep") from exc
    if not isinstance(raw, list) or not all(isinstance(node, dict) for node in raw):
        raise PackageFormatError(
            f"signature {where} must be a JSON list of objects, not {shown(raw)}"
        )
    return raw


def _name(node: Mapping[str, object], where: str) -> str | None:
    name = node.get("name")
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip():
        raise PackageFormatError(f"{where}: a name must be text that is not empty: {shown(name)}")
    return name


def _check_names(names: Sequence[str | None], where: str) -> None:
    if None in names and any(name is not None for name in names):
        raise PackageFormatError(f"signature {where}: either all entries have a name, or none")
    doubled = [name for name, n in Counter(names).items() if n > 1 and name is not None]
    if doubled:
        places = [i for i, name in enumerate(names) if name == doubled[0]]
        raise PackageFormatError(
            f"signature {where}: the name {shown(doubled[0])} stands at positions {listed(places)}"
        )


def _tensor(name: str | None, node: Mapping[str, object], where: str) -> TensorSpec:
    spec = node.get("tensor-spec")
    if not isinstance(spec, Mapping) or not isinstance(spec.get("dtype"), str):
        raise PackageFormatError(f"{where}: a tensor needs tensor-spec with dtype and shape")
    return TensorSpec(name, spec["dtype"], _shape(spec.get("shape"), where))


def _shape(raw: object, where: str) -> tuple[int, ...]:
    if not isinstance(raw, list) or not all(type(n) is int and n >= -1 for n in raw):
        raise PackageFormatError(
            f"{where}: a shape is a list of lengths, -1 for any length, not {shown(raw)}"
        )
    if max(raw, default=0) > _MAX_LENGTH:
        raise PackageFormatError(
            f"{where}: a shape has lengths up to {_MAX_LENGTH}, as Arrow's lists, not {shown(raw)}"
        )
    return tuple(raw)


def _tensor_node(tensor: TensorSpec) -> dict[str, object]:
    spec = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    return {"type": "tensor", "tensor-spec": spec, **_name_node(tensor.name)}


def _name_node(name: str | None) -> dict[str, object]:
    return {} if name is None else {"name": name}


def _param(node: Mapping[str, object], where: str) -> ParamSpec:
    name = _name(node, where)
    if name is None:
        raise PackageFormatError(f"{where}: a param needs a name")
    kind = parse_type(node, where)
    if not isinstance(kind, ScalarType | ObjectType):
        raise PackageFormatError(f"{where}: a param is a scalar or an object; shape makes a list")
    raw_shape = node.get("shape")
    shape = None if raw_shape is None else _shape(raw_shape, where)
    return ParamSpec(name, kind, node.get("default"), shape)
