"""Turn a registered model into an ONNX graph, if that scores the same rows the same.

A graph is faster than some libraries, but often computes in single precision: a value beside a
threshold of a tree may go the other way, which a sample of real rows seldom shows. So what is
compared is a large sample, and rows made of it with values on and beside thresholds.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import (
    ModelError,
    NotConvertedError,
    SourceError,
    UsageError,
    shown,
)
from sparkscore.files.sample import LocalTable, open_local
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import Convertible, FittedModel, TreeRuntime
from sparkscore.flavors.forests import forest_of
from sparkscore.flavors.frames import NUMBERS, column_inputs, numeric_matrix, pandas_frame
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.flavors.onnx_conversion import Precision, convert_to_onnx, converter_versions
from sparkscore.fused.pipeline_steps import steps_of
from sparkscore.names import ModelName
from sparkscore.package import Package, TrustPolicy, open_package
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.schema import ColumnSchema
from sparkscore.package.signature import arrow_schema
from sparkscore.records import ModelVersion
from sparkscore.registering import register_package
from sparkscore.scoring.batch import (
    BatchLimits,
    BatchTask,
    bind_columns,
    joined,
    score_batch,
    slices,
)
from sparkscore.scoring.facts import ModelFacts, SourceColumn, SourceTable
from sparkscore.scoring.parity import Parity, parity_of
from sparkscore.scoring.plan import ScoringRequest, plan_scoring
from sparkscore.scoring.rejects import InvalidRows, is_rejected, setting_aside
from sparkscore.scoring.ties import searched_ties
from sparkscore.trees.forest import Forest
from sparkscore.trees.probes import tie_rows
from sparkscore.workspace import Workspace

Announce = Callable[[str], None]

N_TIES = 20_000
"""Rows with values on and beside thresholds."""
_SHARE_OF_NULLS = 0.02
_N_EXAMPLES = 10
_FROM_TAG = "sparkscore.converted_from"
_TAG = "sparkscore.conversion"
_LIMITS = {ScalarType.INTEGER: 31, ScalarType.LONG: 53}
"""Bits of whole numbers that ties may have; a double knows no more of a long."""


@dataclass(frozen=True)
class ConversionRequest:
    """On which rows a converted model is compared, and how strictly.

    Attributes:
        sample: Path of a Delta table, a Parquet file or a folder of them, on this machine.
        version: Of the Delta table; None: the newest.
        columns: Model column -> source column, where the names differ.
        n_rows: At most so many rows of it, drawn at random.
        tolerance: The largest difference of two predictions that is accepted; labels must be
            equal whatever it is.
        name: The registered model that gets the new version; None: the one that is converted.
    """

    sample: str
    version: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    n_rows: int = 100_000
    tolerance: float = 0.0
    name: ModelName | None = None


@dataclass(frozen=True)
class Conversion:
    """An accepted conversion: the new version, what it was made of, and how it was compared."""

    version: ModelVersion
    converted_from: str
    facts: Mapping[str, object]


def convert(
    workspace: Workspace, uri: str, request: ConversionRequest, announce: Announce
) -> Conversion:
    """Convert a model to ONNX, and register that as a version if it scores the same.

    Args:
        workspace: What the settings name.
        uri: The model's URI; an alias is resolved once.
        request: Sample, tolerance and name.
        announce: Told each step in one line.

    Raises:
        NotConvertedError: There is no converter for the model, or the graph scores rows otherwise
            than the tolerance allows; nothing was registered.
        UsageError: The model has no name, and the request names none.
        SparkscoreError: Model or sample cannot be used.
    """
    announce(f"Resolving {uri}")
    model = workspace.model(uri)
    name = request.name or (None if model.version is None else ModelName(model.name))
    if name is None:
        raise UsageError(
            f"model {uri!r} is a folder and no version of a registered model; say which model its "
            "conversion shall be a version of (--name)"
        )
    source = open_local(request.sample, request.version)
    announce(f"Sampling at most {request.n_rows} rows of {source.table.uri}")
    on_invalid = setting_aside(workspace.settings.scoring.on_invalid)
    rows = _sampled(model, source, request, on_invalid)
    scorer = _Scorer.of(model, workspace)
    ties = _ties(scorer, rows)
    compared = _Compared.of(scorer, rows, ties, announce)
    with tempfile.TemporaryDirectory(prefix="convert-") as scratch:
        best = _best(scorer, compared, Path(scratch), announce)
        if not best.parity.is_within(request.tolerance):
            raise NotConvertedError(_refusal(model, best, compared, request.tolerance))
        facts = _facts(model, source.table, best, compared, request.tolerance)
        announce(f"Registering it as a version of {name}")
        version = register_package(
            best.package.folder,
            name,
            workspace=workspace,
            description=f"{model.uri} as an ONNX graph",
            tags={_FROM_TAG: model.uri, _TAG: json.dumps(facts)},
        )
    return Conversion(version, model.uri, facts)


def _sampled(
    model: ModelFacts, source: LocalTable, request: ConversionRequest, on_invalid: InvalidRows
) -> pa.RecordBatch:
    """Rows with the model's own columns."""
    task = replace(_task(model, source.table, request.columns), on_invalid=on_invalid)
    names = list(dict.fromkeys(b.source.name for b in task.bindings if b.source is not None))
    for batch in source.sample(names, request.n_rows).to_batches():
        rows, unfit = bind_columns(batch, task)
        if unfit is not None:
            rows = rows.filter(pc.invert(is_rejected(unfit, rows.num_rows)))
        if rows.num_rows:
            return rows
    raise SourceError(
        f"sample {source.table.uri!r} has no row that the model can be given; a conversion is "
        "accepted on rows"
    )


def _task(model: ModelFacts, source: SourceTable, columns: Mapping[str, str]) -> BatchTask:
    asked = ScoringRequest("convert", target="conversion", columns=columns)
    plan = plan_scoring(model, source, asked)
    return BatchTask(model.label, plan.bindings, plan.predictions)


@dataclass(frozen=True)
class _Scorer:
    """Loads packages of one model, and scores rows that have the model's own columns."""

    model: ModelFacts
    task: BatchTask
    trust: TrustPolicy
    limits: BatchLimits

    @classmethod
    def of(cls, model: ModelFacts, workspace: Workspace) -> _Scorer:
        schema = arrow_schema(column_inputs(model.signature))
        columns = tuple(SourceColumn(item.name, item.type, str(item.type)) for item in schema)
        task = _task(model, SourceTable(model.uri, "memory", "", columns), {})
        return cls(model, task, workspace.trust, workspace.batch_limits)

    def load(self, folder: Path) -> LoadedPredictor:
        return load_predictor(open_package(folder), self.trust, TreeRuntime.NATIVE)

    def fitted(self) -> FittedModel:
        """The fitted object, loaded for this alone, since a converter may change it.

        Raises:
            NotConvertedError: Its flavor gives none away.
        """
        predictor = self.load(self.model.folder).predictor
        if not isinstance(predictor, Convertible):
            raise NotConvertedError(
                f"model {self.model.label} is of a flavor that cannot be converted to ONNX; known "
                "are sklearn, lightgbm and xgboost; keep it"
            )
        return predictor.fitted()

    def score(self, folder: Path, rows: pa.RecordBatch) -> pa.StructArray:
        """Predictions of all rows by the model's own library, or ONNX Runtime."""
        return self.predict(self.load(folder), rows)

    def predict(self, predictor: LoadedPredictor, rows: pa.RecordBatch) -> pa.StructArray:
        """Predictions of all rows."""
        pieces = slices(rows, self.limits)
        return joined([score_batch(predictor, piece, self.task) for piece in pieces]).predictions


@dataclass(frozen=True)
class _Compared:
    """The rows that both models score, and what the original says of them.

    Attributes:
        rows: The sample, and after it the ties.
        n_ties: How many of them are ties.
    """

    rows: pa.RecordBatch
    n_ties: int
    expected: pa.StructArray

    @classmethod
    def of(
        cls,
        scorer: _Scorer,
        sample: pa.RecordBatch,
        ties: pa.RecordBatch | None,
        announce: Announce,
    ) -> _Compared:
        n_ties = 0 if ties is None else ties.num_rows
        announce(f"Scoring {sample.num_rows} rows, and {n_ties} on and beside thresholds")
        tables = [pa.Table.from_batches([part]) for part in (sample, ties) if part is not None]
        (rows,) = pa.concat_tables(tables).combine_chunks().to_batches()
        return cls(rows, n_ties, scorer.score(scorer.model.folder, rows))


def _ties(scorer: _Scorer, rows: pa.RecordBatch) -> pa.RecordBatch | None:
    """Rows around the thresholds of the model's trees; None where it has no trees."""
    fitted, schema = scorer.fitted(), column_inputs(scorer.model.signature)
    forest = forest_of(fitted.model)
    is_numeric = all(column.type in NUMBERS for column in schema.columns)
    if forest is not None and is_numeric and forest.n_features == len(schema.columns):
        return _planted(forest, rows, schema)
    doubles = [i for i, column in enumerate(schema.columns) if column.type == ScalarType.DOUBLE]
    if not doubles or forest_of(steps_of(fitted.model)[-1]) is None:
        return None
    # What its trees look at is made of the columns by other steps.
    predictor = scorer.load(scorer.model.folder)
    return searched_ties(partial(scorer.predict, predictor), rows, doubles, N_TIES // 4)


def _planted(forest: Forest, rows: pa.RecordBatch, schema: ColumnSchema) -> pa.RecordBatch:
    made = tie_rows(forest, numeric_matrix(rows, schema, {}), N_TIES)
    rng = np.random.default_rng(0)
    columns = []
    for i, (spec, item) in enumerate(zip(schema.columns, rows.schema, strict=True)):
        values, kind = made[:, i], spec.type
        is_null = np.isnan(values)
        if not spec.required:
            is_null |= rng.random(N_TIES) < _SHARE_OF_NULLS
        if kind in _LIMITS:
            # The whole numbers on either side of a threshold.
            limit = 2.0 ** _LIMITS[kind] - 1
            values = np.floor(values) + rng.integers(0, 2, N_TIES)
            values = np.clip(values, -limit, limit)
        elif kind is ScalarType.BOOLEAN:
            values = values > 0.5  # noqa: PLR2004 - between false and true
        values = np.where(is_null, 0, values)
        columns.append(pa.array(values.astype(item.type.to_pandas_dtype()), item.type, is_null))
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


@dataclass(frozen=True)
class _Candidate:
    """A graph, and how it compares."""

    package: Package
    precision: Precision
    parity: Parity
    found: pa.StructArray


def _best(scorer: _Scorer, compared: _Compared, scratch: Path, announce: Announce) -> _Candidate:
    """The graph that differs least, of those that can be made and run.

    Raises:
        NotConvertedError: There is none.
    """
    best: _Candidate | None = None
    refusal: ModelError | None = None
    for precision in Precision:
        announce(f"Converting {scorer.model.label} in {precision}s, and comparing")
        try:
            candidate = _candidate(scorer, compared, precision, scratch / precision)
        except ModelError as exc:  # That a graph does not load or score is told in many ways.
            refusal = exc
            continue
        if best is None or candidate.parity.largest_difference < best.parity.largest_difference:
            best = candidate
        if not best.parity.n_differing:
            break
    if best is not None:
        return best
    assert refusal is not None
    if isinstance(refusal, NotConvertedError):
        raise refusal
    raise NotConvertedError(
        f"model {scorer.model.label} has an ONNX graph that does not score its rows: {refusal}"
    ) from refusal


def _candidate(
    scorer: _Scorer, compared: _Compared, precision: Precision, folder: Path
) -> _Candidate:
    signature = scorer.model.signature
    schema = column_inputs(signature)
    graph = convert_to_onnx(scorer.fitted(), schema, scorer.task.predictions, precision)
    example = pandas_frame(compared.rows.slice(0, _N_EXAMPLES), schema)
    package = save_model(graph, folder, flavor="onnx", signature=signature, input_example=example)
    found = scorer.score(package.folder, compared.rows)
    return _Candidate(package, precision, parity_of(compared.expected, found), found)


def _facts(
    model: ModelFacts,
    source: SourceTable,
    best: _Candidate,
    compared: _Compared,
    tolerance: float,
) -> dict[str, object]:
    return {
        "digest": model.digest,
        "precision": best.precision.value,
        "n_rows": best.parity.n_rows,
        "n_ties": compared.n_ties,
        "n_differing": best.parity.n_differing,
        "largest_difference": best.parity.largest_difference,
        "tolerance": tolerance,
        "sample": {"uri": source.uri, "version": source.version},
        "libraries": converter_versions(),
    }


def _refusal(model: ModelFacts, best: _Candidate, compared: _Compared, tolerance: float) -> str:
    parity, row = best.parity, best.parity.worst_row
    inputs, ours, theirs = (
        part.slice(row, 1).to_pylist()[0] for part in (compared.rows, compared.expected, best.found)
    )
    largest = parity.largest_difference
    much = (
        f"by {largest:.6g} at most" if math.isfinite(largest) else "in a label or a missing value"
    )
    return (
        f"model {model.label} as an ONNX graph in {best.precision}s differs in "
        f"{parity.n_differing} of {parity.n_rows} rows ({compared.n_ties} of them on and beside "
        f"thresholds), {much}, and the tolerance is {tolerance:g}: for {shown(inputs)} it answers "
        f"{shown(theirs)}, and the model {shown(ours)}. Nothing was registered; keep the model as "
        "it is, or raise --tolerance if such differences do not matter"
    )
