"""Rows whose values a model cannot be given: why, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import shown
from sparkscore.scoring.casts import is_list
from sparkscore.scoring.comparison import Binding
from sparkscore.scoring.rejects import RejectCode, reasons

_NULL_TEXT = "is null, but the model's column is required and its type has no missing value"


@dataclass(frozen=True)
class Unfit:
    """The rows whose value a model's column cannot be given, for one reason."""

    binding: Binding
    code: RejectCode
    mask: pa.Array


def undecodable(value: pa.Scalar) -> UnicodeDecodeError | None:
    """Why a text is none; None: it is one."""
    try:
        value.as_py()
    except UnicodeDecodeError as exc:
        return exc
    return None


def invalid_text(batch: pa.RecordBatch, unfit: Unfit, model: str) -> str:
    """What is said of such rows where they end the job."""
    source = unfit.binding.source
    assert source is not None
    row = first_row(unfit)
    what = _what_is_wrong(batch.column(source.name)[row], unfit)
    if unfit.code is RejectCode.MALFORMED:
        return (
            f"{what} ({unfit.mask.true_count} such rows in a batch of {batch.num_rows}); mend what "
            "sends them, and set those that are there aside: --on-invalid quarantine"
        )
    return (
        f"model {model}: column {source.name!r} {what} ({unfit.mask.true_count} such rows in a "
        f"batch of {batch.num_rows}, the first is its row {row}); fill or filter them, declare the "
        "column optional, or set them aside: scoring.on_invalid=quarantine (--on-invalid "
        "quarantine)"
    )


def first_row(unfit: Unfit) -> int:
    """Which row of the batch is the first of them."""
    row: int = pc.index(unfit.mask, True).as_py()
    return row


def unfit_reasons(batch: pa.RecordBatch, unfit: Unfit, rows: pa.Array) -> pa.RecordBatch:
    """Why some of them, by their places in the batch, are rejected; see `rejects.REASONS`."""
    source = unfit.binding.source
    assert source is not None
    messages: str | list[str] = _NULL_TEXT
    if unfit.code is not RejectCode.NULL:
        messages = [_what_is_wrong(value, unfit) for value in batch.column(source.name).take(rows)]
    column = None if unfit.code is RejectCode.MALFORMED else source.name
    return reasons(rows, unfit.code, column, messages)


def _what_is_wrong(value: pa.Scalar, unfit: Unfit) -> str:
    if unfit.code is RejectCode.NULL:
        return _NULL_TEXT
    if unfit.code is RejectCode.MALFORMED:
        return str(value.as_py())
    if unfit.code is RejectCode.NO_TEXT:
        wrong = undecodable(value)
        assert wrong is not None
        return (
            f"holds text that is no UTF-8: byte 0x{wrong.object[wrong.start]:02x} at offset "
            f"{wrong.start} of {shown(wrong.object)}; decode it rightly in a view, or mend it "
            "there with make_valid_utf8"
        )
    wanted = unfit.binding.type
    if is_list(wanted):
        return f"is {shown(value.as_py())}, which is no row of {_shape_text(wanted)} without null"
    return f"is {shown(value.as_py())}, which no {wanted} equals"


def _shape_text(kind: pa.DataType) -> str:
    """The type of a tensor's rows, such as `double[28, 28]`."""
    lengths: list[str] = []
    while is_list(kind):
        lengths.append(str(kind.list_size) if pa.types.is_fixed_size_list(kind) else "-1")
        kind = kind.value_type
    return f"{kind}[{', '.join(lengths)}]"
