"""Models without Spark: loaded and asked in this process, or packaged and registered."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import pyarrow as pa

from sparkscore.current_run import active_run, start_run
from sparkscore.errors import (
    InvalidRowsError,
    SignatureMismatchError,
    UsageError,
    listed,
    nearest,
    shown,
)
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.names import parse_alias, parse_model_name
from sparkscore.package import open_package
from sparkscore.package.params import given_params
from sparkscore.package.schema import TensorSchema
from sparkscore.package.tensors import nested_lists
from sparkscore.registering import register_package
from sparkscore.scoring.batch import BatchTask, joined, score_batch, slices
from sparkscore.scoring.casts import is_list
from sparkscore.scoring.comparison import Binding, rows_binding
from sparkscore.scoring.facts import SourceColumn, input_columns
from sparkscore.workspace import Workspace, default_workspace

if TYPE_CHECKING:
    import pandas as pd

    from sparkscore.flavors.load import LoadedPredictor
    from sparkscore.package.schema import Schema
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy
    from sparkscore.records import ModelVersion
    from sparkscore.scoring.batch import BatchLimits
    from sparkscore.scoring.facts import InputColumn, ModelFacts


class HowToSave(TypedDict, total=False):
    """The keyword arguments of `save_model`."""

    flavor: str | None
    signature: Signature | None
    input_example: pd.DataFrame | np.ndarray | Mapping[str, np.ndarray] | None
    serialization_format: str | None
    predict_fn: str | None
    pip_requirements: Iterable[str] | None
    extra_requirements: Iterable[str]
    conda_env: Mapping[str, object] | Path | None
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
        | NumPy array of the shape of the model's unnamed tensor | the same |
        | mapping of column to values | a mapping of prediction column to a list |

        Args:
            data: Columns by name, in any order; further ones are left out. Tensors are arrays by
                name, or columns as in a table. Values are converted only where nothing is lost.
            params: In the place of the defaults that the signature declares.

        Raises:
            SignatureMismatchError: A column is missing or of another type.
            InvalidRowsError: A value is missing, or none that the model's column can hold.
            ConfigError: A param is unknown or of another type.
            PredictionError: The model raised, or its answer is not what the signature declares.
            UsageError: `data` is of another kind.
        """
        inputs = input_columns(self.facts)
        given = _columns(data, self.signature.inputs, inputs)
        columns = {n: _as_array(v, n, inputs[n].type) for n, v in given.items() if n in inputs}
        bindings = _bindings(self.facts, inputs, columns, given.keys())
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
    model: str,
    trust: bool = False,
    *,
    predict: str | None = None,
    workspace: Workspace | None = None,
) -> LoadedModel:
    """The model of a URI in this process, without Spark.

    Args:
        model: A model URI, such as `models:/flight-delay@champion`, or a folder. A pipeline of
            Spark ML is asked through the running Spark session, or a new one of this machine.
        trust: Whether it may run code that its package brings; the settings may say so as well.
        predict: The function to ask, such as `predict_proba`; None: the packaged one.
        workspace: Where the registry is; None opens the one that settings name.

    Raises:
        ModelError: The model is not there, or cannot be trusted or loaded.
        ConfigError: The settings do not hold together.

    Example:
        >>> model = sparkscore.load_model("models:/flight-delay@champion")
        >>> model.predict({"dep_delay": [0.0, 60.0], "distance": [200.0, 2500.0]})
    """
    opened = workspace or default_workspace()
    facts = opened.model(model, predict)
    policy = replace(opened.trust, allow_code=True) if trust else opened.trust
    package = open_package(facts.folder)
    if flavor_of(package) == SPARK:
        opened.spark  # noqa: B018 - as the settings want it, before the model would start another
    predictor = load_predictor(package, policy, opened.tree_runtime, facts.predict)
    return LoadedModel(facts, predictor, opened.batch_limits)


def log_model(
    model: object,
    name: str,
    *,
    registered_model_name: str | None = None,
    alias: str | None = None,
    run_id: str | None = None,
    workspace: Workspace | None = None,
    **how: Unpack[HowToSave],
) -> ModelVersion:
    """Package a model and register it as the next version of `name`, in one call.

    Args:
        model: What `save_model` takes.
        name: Registered model; created if it is new.
        registered_model_name: As in MLflow: this is the registered model, and `name` the folder
            of its package among the files of the active run, or of a new run.
        alias: Points to the new version once it is READY.
        run_id: The run that made the model; None: the active run, if there is one.
        workspace: Where the registry is; None opens the one that settings name.
        how: The keyword arguments of `save_model`.

    Raises:
        SparkscoreError: What `save_model` or the registry refuses; the alias is where it was.

    Example:
        >>> version = sparkscore.log_model(fitted, "flight-delay", input_example=rows)
        >>> sparkscore.load_model(f"models:/flight-delay/{version.version}")
    """
    parsed = parse_model_name(registered_model_name or name)
    parsed_alias = None if alias is None else parse_alias(alias)
    opened = workspace or default_workspace()
    run = active_run()
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="sparkscore-log-"))
        package = save_model(model, Path(scratch) / "package", **how)
        kept_at = None
        if registered_model_name is not None:
            run = run or stack.enter_context(start_run(name, workspace=opened))
            kept_at = f"{run.artifact_uri}/{run.log_package(package, name)}"
        return register_package(
            package.folder,
            parsed,
            workspace=opened,
            alias=parsed_alias,
            run=run,
            run_id=run_id or "",
            kept_at=kept_at,
        )


def _columns(
    data: object, schema: Schema, inputs: Mapping[str, InputColumn]
) -> Mapping[str, object]:
    """The columns of the data by name; those of an array have the model's names."""
    import pandas as pd

    if isinstance(data, pa.Table | pa.RecordBatch):
        _check_single(data.schema.names, inputs)
        return dict(zip(data.schema.names, data.columns, strict=True))
    if isinstance(data, pd.DataFrame):
        names = [str(name) for name in data.columns]
        _check_single(names, inputs)
        return {name: data.iloc[:, i] for i, name in enumerate(names)}
    if isinstance(data, np.ndarray):
        return _array_columns(data, schema, inputs)
    if isinstance(data, Mapping):
        return data
    raise UsageError(
        f"a {type(data).__name__} was given; take a pandas DataFrame, an Arrow table, a NumPy "
        "array, or a mapping of columns to values"
    )


def _check_single(names: Sequence[str], inputs: Collection[str]) -> None:
    doubled = [name for name, n in Counter(names).items() if n > 1 and name in inputs]
    if doubled:
        raise SignatureMismatchError(
            f"the data has several columns {listed(doubled)}, of which the model reads one; "
            "rename or drop the others"
        )


def _array_columns(
    array: np.ndarray, schema: Schema, inputs: Mapping[str, InputColumn]
) -> Mapping[str, object]:
    if isinstance(schema, TensorSchema) and len(inputs) == 1:
        return dict.fromkeys(inputs, array)
    matrix = array.reshape(-1, 1) if array.ndim == 1 else array
    if matrix.ndim != 2 or matrix.shape[1] != len(inputs):  # noqa: PLR2004 - rows and columns
        raise UsageError(
            f"an array of shape {array.shape} was given, but the model takes {len(inputs)} columns"
        )
    return {name: matrix[:, i] for i, name in enumerate(inputs)}


def _bindings(
    model: ModelFacts,
    inputs: Mapping[str, InputColumn],
    columns: Mapping[str, pa.Array],
    present: Collection[str],
) -> tuple[Binding, ...]:
    """How the model's columns are filled: each from the one of its name."""
    bindings: list[Binding] = []
    names = list(inputs)
    while names:
        name = names.pop(0)
        wanted = inputs[name]
        if wanted.required and name not in columns:
            raise SignatureMismatchError(
                f"model {model.label} needs column {name!r}{nearest(name, present)}; "
                f"the data has {listed(present)}"
            )
        # A column's own type decides how it is cast, as in every engine.
        source = SourceColumn(name, None, "") if name in columns else None
        if source and wanted.rows is not None and is_list(columns[name].type):
            bindings.append(rows_binding(name, source, wanted))
            del names[: wanted.n_columns - 1]
        else:
            bindings.append(Binding(name, source, wanted.type, None, wanted.needs_value))
    return tuple(bindings)


def _as_batch(columns: Mapping[str, pa.Array], bindings: Iterable[Binding]) -> pa.RecordBatch:
    """The columns that the bindings read, with their own types."""
    read = [binding.source.name for binding in bindings if binding.source is not None]
    lengths = {len(columns[name]) for name in read}
    if len(lengths) != 1:
        found = listed(sorted(lengths)) if lengths else "no column that the model reads"
        raise UsageError(f"the columns of the data must have one length each, but have {found}")
    return pa.RecordBatch.from_pydict({name: columns[name] for name in read})


def _as_array(values: object, name: str, wanted: pa.DataType) -> pa.Array:
    try:
        if isinstance(values, pa.ChunkedArray):
            return values.combine_chunks()
        if not isinstance(values, pa.Array) and hasattr(values, "__len__") and not len(values):
            return pa.array([], wanted)  # Without values, pandas guesses their type.
        if isinstance(values, np.ndarray) and values.ndim > 1:
            return nested_lists(values)
        array = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as exc:
        text = f"column {name!r} is a {type(values).__name__} that makes no column: {exc}"
        raise UsageError(text) from exc
    except UnicodeEncodeError as exc:  # UTF-8, which Arrow keeps text in, has no lone surrogates.
        raise InvalidRowsError(
            f"column {name!r} holds text that is no Unicode: U+{ord(exc.object[exc.start]):04X} at "
            f"character {exc.start} of {shown(exc.object)}; decode it rightly, or replace it"
        ) from exc
    # Nothing but nulls has no type of its own.
    return array.cast(wanted) if pa.types.is_null(array.type) else array


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
