"""The rows that a model is fitted on: their schema, a digest, and a few of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from sparkscore.errors import UsageError
from sparkscore.package.schema import ColumnSchema, Schema, dump_schema
from sparkscore.package.signature import infer_signature
from sparkscore.records import Dataset, DatasetInput

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Rows whose values a digest covers: of a larger set these are spread evenly, so that a digest
# costs at most a second for a hundred columns.
_MAX_DIGEST_ROWS = 100_000
_DIGEST_BYTES = 8


@dataclass(frozen=True)
class Rows:
    """What a record says of rows; `sample` is of the kind that the model's predict takes."""

    n_rows: int
    n_columns: int
    inputs: Schema
    sample: pd.DataFrame | np.ndarray | csr_array
    digest: str

    def example(self, n_rows: int) -> pd.DataFrame:
        """Some of the rows, as a frame."""
        some = self.sample[:n_rows]
        if isinstance(some, pd.DataFrame):
            return some
        return pd.DataFrame(some if isinstance(some, np.ndarray) else some.toarray())


def rows_of(features: object, targets: object = None) -> Rows:
    """The record of rows in a frame, an array of two axes or a sparse matrix.

    Args:
        features: n_rows x n_columns.
        targets: n_rows labels, which the digest covers too.

    Raises:
        UsageError: The rows are of another kind, such as a list of texts.
        SignatureMismatchError: A column holds values of mixed types.
    """
    if isinstance(features, list):
        features = np.asarray(features)
    if hasattr(features, "tocsr"):
        features = features.tocsr()
    elif isinstance(features, np.ndarray):
        features = features if features.ndim == 2 else None  # noqa: PLR2004 - rows and columns
    elif not isinstance(features, pd.DataFrame):
        features = None
    if features is None:
        raise UsageError("the rows are no frame, array of two axes or sparse matrix")
    table = cast("pd.DataFrame | np.ndarray | csr_array", features)
    n_rows, n_columns = table.shape
    picked = _picked(n_rows)
    sample = table.iloc[picked] if isinstance(table, pd.DataFrame) else table[picked]
    # All rows of a frame or array: one null far down makes a column optional.
    shown = table if isinstance(table, pd.DataFrame | np.ndarray) else table[:1].toarray()
    inputs = infer_signature(shown).inputs
    chosen = None if targets is None else _take(targets, picked)
    return Rows(n_rows, n_columns, inputs, sample, digest_of(sample, chosen, n_rows))


def digest_of(sample: object, targets: object, n_rows: int) -> str:
    """Sixteen hexadecimal digits for values, names, types and the number of rows."""
    seal = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    seal.update(str(n_rows).encode())
    for part in (sample, targets):
        if part is not None:
            for array in _arrays(part):
                seal.update(str(array.dtype).encode() + np.ascontiguousarray(array).tobytes())
    return seal.hexdigest()


def dataset_input(name: str, context: str, rows: Rows, source: str) -> DatasetInput:
    """Rows as a dataset that a run used.

    Args:
        name: What it is called.
        context: `train` or `eval`; empty: none.
        rows: Its rows.
        source: JSON of where the code is that read it.
    """
    profile = {"num_rows": rows.n_rows, "num_elements": rows.n_rows * rows.n_columns}
    dataset = Dataset(
        name=name,
        digest=rows.digest,
        source_type="code",
        source=source,
        schema=json.dumps(_schema_record(rows.inputs)),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, {"mlflow.data.context": context} if context else {})


def _schema_record(schema: Schema) -> dict[str, object]:
    """A schema in the form that MLflow gives those of frames, or of arrays."""
    text = dump_schema(schema)
    if isinstance(schema, ColumnSchema):
        return {"mlflow_colspec": json.loads(text)}
    return {"mlflow_tensorspec": {"features": text, "targets": None}}


def _arrays(part: object) -> Iterator[np.ndarray]:
    """Arrays of numbers that stand for all of the values in a frame, array or sparse matrix."""
    if hasattr(part, "tocsr"):
        matrix = cast("csr_array", part)
        yield from (matrix.indptr, matrix.indices, matrix.data)
    elif isinstance(part, pd.DataFrame | pd.Series):
        frame = part.to_frame() if isinstance(part, pd.Series) else part
        named = [(str(name), str(kind)) for name, kind in frame.dtypes.items()]
        yield np.frombuffer(json.dumps(named).encode(), dtype=np.uint8)
        yield pd.util.hash_pandas_object(frame, index=False).to_numpy()
    else:
        array = np.asarray(part)
        is_plain = array.dtype != object
        yield array if is_plain else pd.util.hash_array(array.ravel().astype(str).astype(object))


def _picked(n_rows: int) -> np.ndarray:
    if n_rows <= _MAX_DIGEST_ROWS:
        return np.arange(n_rows)
    return np.linspace(0, n_rows - 1, _MAX_DIGEST_ROWS, dtype=np.int64)


def _take(values: object, picked: np.ndarray) -> object:
    if isinstance(values, pd.Series | pd.DataFrame):
        return values.iloc[picked]
    return np.asarray(values)[picked]
