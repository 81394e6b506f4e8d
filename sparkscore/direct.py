"""Models without Spark: loaded and asked in this process, or packaged and registered."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import pyarrow as pa

from sparkscore.errors import SignatureMismatchError, UsageError, listed, nearest, shown
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.frames import column_inputs
from sparkscore.names import parse_alias, parse_model_name
from sparkscore.package import open_package
from sparkscore.package.params import given_params
from sparkscore.package.signature import arrow_type
from sparkscore.scoring.batch import BatchTask, joined, score_batch, slices
from sparkscore.scoring.casts import can_hold_missing
from sparkscore.scoring.comparison import Binding
from sparkscore.scoring.facts import SourceColumn
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from sparkscore.flavors.load import LoadedPredictor
    from sparkscore.package.signature import ColumnSchema, ColumnSpec, Signature
    from sparkscore.package.trust import TrustPolicy
    from sparkscore.records import ModelVersion
    from sparkscore.scoring.batch import BatchLimits
    from sparkscore.scoring.facts import ModelFacts


class HowToSave(TypedDict, total=False):
    """The keyword arguments of `save_model`."""

    flavor: str | None
    signature: Signature | None
    input_example: pd.DataFrame | None
    extra_requirements: Iterable[str]
    metadata: Mapping[str, object] | None
    artifacts: Mapping[str, Path] | None
    model_config: Mapping[str, object] | None
    code_paths: Iterable[Path | str]
    trust: TrustPolicy | None


@dataclass(frozen=True)
class LoadedModel:
    """A model in this process; what it answers is what every engine writes for the same rows."""

    facts: ModelFacts
    predictor: LoadedPredictor
    limits: BatchLimits

    @property
    def signature(self) -> Signature:
        """What goes in, what comes out, and which params a call may set."""
        return self.facts.signature

    def predict(
        self,
        data: pd.DataFrame | pa.Table | pa.RecordBatch | np.ndarray | Mapping[str, object],
        params: Mapping[str, object] | None = None,
    ) -> object:
        """Predictions for rows, in their order.

        | data | answer |
        |---|---|
        | pandas DataFrame | a Series, of several prediction columns a DataFrame; with its index |
        | Arrow table or batch | an Arrow table |
        | NumPy array, n_rows x columns in the signature's order | an array, n_rows or n_rows x k |
        | mapping of column to values | a mapping of prediction column to a list |

        Args:
            data: Columns by name, in any order; further ones are left out. Values are converted
                only where nothing is lost.
            params: In the place of the defaults that the signature declares.

        Raises:
            SignatureMismatchError: A column is missing or of another type.
            InvalidRowsError: A value is missing, or none that the model's column can hold.
            ConfigError: A param is unknown or of another type.
            PredictionError: The model raised, or its answer is not what the signature declares.
            UsageError: `data` is of another kind.
        """
        schema = column_inputs(self.signature)
        columns = _columns(data, schema)
        bindings = tuple(
            _binding(self.facts, name, spec, columns.keys())
            for name, spec in zip(schema.names, schema.columns, strict=True)
        )
        batch = _as_batch(columns, bindings)
        task = BatchTask(
            self.facts.label,
            bindings,
            self.facts.predictions,
            params=given_params(self.signature.params, params or {}),
        )
        pieces = [score_batch(self.predictor, p, task) for p in slices(batch, self.limits)]
        return _like(data, pa.Table.from_struct_array(joined(pieces).predictions))


def load_model(
    model: str, trust: bool = False, *, workspace: Workspace | None = None
) -> LoadedModel:
    """The model of a URI in this process, without Spark.

    Args:
        model: A model URI, such as `models:/flight-delay@champion`, or a folder.
        trust: Whether it may run code that its package brings; the settings may say so as well.
        workspace: Where the registry is; None opens the one that settings name.

    Raises:
        ModelError: The model is not there, or cannot be trusted or loaded.
        ConfigError: The settings do not hold together.

    Example:
        >>> model = sparkscore.load_model("models:/flight-delay@champion")
        >>> model.predict({"dep_delay": [0.0, 60.0], "distance": [200.0, 2500.0]})
    """
    opened = workspace or Workspace.open()
    facts = opened.model(model)
    policy = replace(opened.trust, allow_code=True) if trust else opened.trust
    predictor = load_predictor(open_package(facts.folder), policy, opened.tree_runtime)
    return LoadedModel(facts, predictor, opened.batch_limits)


def log_model(
    model: object,
    name: str,
    *,
    alias: str | None = None,
    run_id: str = "",
    workspace: Workspace | None = None,
    **how: Unpack[HowToSave],
) -> ModelVersion:
    """Package a model and register it as the next version of `name`, in one call.

    Args:
        model: What `save_model` takes.
        name: Registered model; created if it is new.
        alias: Points to the new version once it is READY.
        run_id: The run that made the model.
        workspace: Where the registry is; None opens the one that settings name.
        how: The keyword arguments of `save_model`.

    Raises:
        SparkscoreError: What `save_model` or the registry refuses; the alias is where it was.

    Example:
        >>> version = sparkscore.log_model(fitted, "flight-delay", input_example=rows)
        >>> sparkscore.load_model(f"models:/flight-delay/{version.version}")
    """
    parsed = parse_model_name(name)
    parsed_alias = None if alias is None else parse_alias(alias)
    opened = workspace or Workspace.open()
    with tempfile.TemporaryDirectory(prefix="sparkscore-log-") as scratch:
        package = save_model(model, Path(scratch) / "package", **how)
        return opened.registry.register(package.folder, parsed, alias=parsed_alias, run_id=run_id)


def _columns(data: object, schema: ColumnSchema) -> Mapping[str, object]:
    """The columns of the data by name; those of an array have the model's names."""
    import pandas as pd

    if isinstance(data, pa.Table | pa.RecordBatch):
        return dict(zip(data.schema.names, data.columns, strict=True))
    if isinstance(data, pd.DataFrame):
        return {str(name): data.iloc[:, i] for i, name in enumerate(data.columns)}
    if isinstance(data, np.ndarray):
        matrix = data.reshape(-1, 1) if data.ndim == 1 else data
        n_columns = len(schema.columns)
        if matrix.ndim != 2 or matrix.shape[1] != n_columns:  # noqa: PLR2004 - rows and columns
            raise UsageError(
                f"an array of shape {data.shape} was given, but the model takes {n_columns} columns"
            )
        return {name: matrix[:, i] for i, name in enumerate(schema.names)}
    if isinstance(data, Mapping):
        return data
    raise UsageError(
        f"a {type(data).__name__} was given; take a pandas DataFrame, an Arrow table, a NumPy "
        "array, or a mapping of columns to values"
    )


def _binding(model: ModelFacts, name: str, spec: ColumnSpec, present: Collection[str]) -> Binding:
    if spec.required and name not in present:
        raise SignatureMismatchError(
            f"model {model.label} needs column {name!r}{nearest(name, present)}; "
            f"the data has {listed(present)}"
        )
    kind = arrow_type(spec.type)
    # A column's own type decides how it is cast, as in every engine.
    source = SourceColumn(name, None, "") if name in present else None
    return Binding(name, source, kind, None, spec.required and not can_hold_missing(kind))


def _as_batch(columns: Mapping[str, object], bindings: Iterable[Binding]) -> pa.RecordBatch:
    """The columns that the bindings read, with their own types."""
    arrays = {
        b.model_column: _as_array(columns[b.model_column], b)
        for b in bindings
        if b.source is not None
    }
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) != 1:
        found = listed(sorted(lengths)) if lengths else "no column that the model reads"
        raise UsageError(f"the columns of the data must have one length each, but have {found}")
    return pa.RecordBatch.from_pydict(arrays)


def _as_array(values: object, binding: Binding) -> pa.Array:
    try:
        if isinstance(values, pa.ChunkedArray):
            return values.combine_chunks()
        array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as exc:
        text = f"column {binding.model_column!r} is {shown(values)}, which is no column: {exc}"
        raise UsageError(text) from exc
    # Nothing but nulls has no type of its own.
    return array.cast(binding.type) if pa.types.is_null(array.type) else array


def _like(data: object, table: pa.Table) -> object:
    """Predictions in the kind that the data came in."""
    if isinstance(data, pa.Table | pa.RecordBatch):
        return table
    if isinstance(data, Mapping):
        return table.to_pydict()
    is_single = table.num_columns == 1
    if isinstance(data, np.ndarray):
        arrays = [column.to_numpy() for column in table.columns]
        return arrays[0] if is_single else np.stack(arrays, axis=1)
    frame = table.to_pandas()
    frame.index = data.index  # type: ignore[attr-defined]  # a pandas DataFrame
    return frame.iloc[:, 0] if is_single else frame
