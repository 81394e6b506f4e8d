"""What a graph's file says, read before any of it is computed: sizes, and the files beside it.

Tensors may lie in files of their own. The file names them, and also how large a tensor is, which
ONNX Runtime takes memory for before it looks at the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparkscore.errors import PackageFormatError, shown
from sparkscore.package.layout import resolve_inside

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

_MAX_ELEMENTS_PER_BYTE = 8
"""No type of ONNX takes less than a bit."""
_VALUES = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def read_graph(folder: Path, path: Path) -> ModelProto:
    """The graph in the file `path` of the package `folder`, without tensors of other files.

    Raises:
        PackageFormatError: No graph, a tensor that is larger than its data, or a file beside it
            that is missing or leads out of the package.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if path.suffix != ".onnx":
        raise PackageFormatError(
            f"{path} has another ending than .onnx, by which ONNX Runtime may take it for another "
            "format; save the model again"
        )
    try:
        model: ModelProto = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as exc:
        raise PackageFormatError(f"{path} is no ONNX model: {shown(str(exc))}") from exc
    for tensor in _tensors(model, path):
        n_bytes = _n_bytes(tensor, folder, path)
        n_elements = math.prod(tensor.dims)
        if min(tensor.dims, default=0) < 0 or n_elements > n_bytes * _MAX_ELEMENTS_PER_BYTE:
            raise PackageFormatError(
                f"{path}: tensor {shown(tensor.name)} says it has the shape "
                f"{shown(list(tensor.dims))}, and its data are {n_bytes} bytes; export the model "
                "again"
            )
    return model


def _tensors(message: Any, path: Path) -> Iterator[TensorProto]:  # noqa: ANN401 - any of protobuf's
    """All tensors: initializers, attributes of nodes, those of graphs inside and of functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            kind = part.DESCRIPTOR.name
            if kind == "SparseTensorProto":
                raise PackageFormatError(
                    f"{path} has a sparse tensor, which is unfolded to whatever size it says; "
                    "export the model with dense tensors"
                )
            if kind == "TensorProto":
                yield part
            else:
                yield from _tensors(part, path)


def _n_bytes(tensor: TensorProto, folder: Path, path: Path) -> int:
    """How much data a tensor has, at most."""
    if tensor.data_location != tensor.EXTERNAL:
        n_values = sum(len(getattr(tensor, name)) for name in _VALUES)
        return max(len(tensor.raw_data), n_values)
    said = {entry.key: entry.value for entry in tensor.external_data}
    where = f"{path}: tensor {shown(tensor.name)}"
    name = path.parent.relative_to(folder) / said.get("location", "")
    beside = resolve_inside(folder, str(name), where)
    if not beside.is_file():
        raise PackageFormatError(f"{where} names {shown(str(name))}, which is no file")
    try:
        offset = int(said.get("offset", "0"))
        length = int(said.get("length", beside.stat().st_size - offset))
    except ValueError as exc:
        raise PackageFormatError(f"{where}: its place {shown(said)} is no number") from exc
    if offset < 0 or length < 0 or offset + length > beside.stat().st_size:
        raise PackageFormatError(
            f"{where} lies at {offset} to {offset + length} of {shown(str(name))}, which has "
            f"{beside.stat().st_size} bytes; fetch the package again"
        )
    return length
