"""The flavor of Spark ML: pipelines as Spark saves them. It lives here, where Spark is known."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyspark
from pyspark.ml import Model, PipelineModel, Transformer
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from sparkscore.errors import (
    PackageFormatError,
    PredictionError,
    UsageError,
    shown,
)
from sparkscore.flavors.base import FlavorConf, Predictor, Runtime, SavedFlavor
from sparkscore.package.layout import resolve_inside
from sparkscore.package.node_folder import node_folder
from sparkscore.scoring.facts import prediction_schema
from sparkscore.spark.failures import SPARK_FAILURES, first_line, reason_of
from sparkscore.spark.java import find_java
from sparkscore.spark.launch import prepare_environment
from sparkscore.spark.pipeline_files import read_stages
from sparkscore.spark.pipelines import KEPT, answered, as_spark_path, load_pipeline
from sparkscore.spark.source import quoted

if TYPE_CHECKING:
    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

_FOLDER = "sparkml"
_ROW = "__sparkscore_row"
_CONNECT = "pyspark.ml.connect."


class SparkFlavor:
    """Reads what MLflow's flavor `spark` writes."""

    name = "spark"

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `sparkml/`, by the session that the model belongs to; see `Flavor.save`."""
        if not isinstance(model, Model | Transformer):
            raise UsageError(
                f"a {type(model).__name__} is no fitted model of Spark ML; pass what fit() returned"
            )
        # MLflow reads nothing else.
        pipeline = model if isinstance(model, PipelineModel) else PipelineModel([model])
        path = folder / _FOLDER
        try:
            pipeline.write().save(as_spark_path(path))
        except (ValueError, *SPARK_FAILURES) as exc:
            raise UsageError(f"Spark cannot save this pipeline: {first_line(exc)}") from exc
        if not (path / "metadata").is_dir():
            raise UsageError(
                f"Spark's executors wrote the pipeline, and {path.parent} is not theirs too; save "
                "it to a folder that driver and executors share"
            )
        own: dict[str, object] = {
            "pyspark_version": pyspark.__version__,
            "model_data": _FOLDER,
            "model_class": f"{PipelineModel.__module__}.{PipelineModel.__name__}",
            "code": None,
        }
        generic = {"loader_module": "mlflow.spark", "data": _FOLDER}
        return SavedFlavor(
            {self.name: own, "python_function": generic}, ("numpy", "pandas", "pyspark")
        )

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor that asks the session of this process when it is first asked itself."""
        path = resolve_inside(folder, conf.get("model_data"), "MLmodel flavors.spark.model_data")
        kind = conf.get("model_class")
        if isinstance(kind, str) and kind.startswith(_CONNECT):
            raise PackageFormatError(
                f"{folder} holds a {shown(kind)}, a model of Spark Connect's own kind, which is "
                "not supported; fit and save it in a classic session"
            )
        read_stages(path, trust)
        return _PipelinePredictor(path, signature)


class _PipelinePredictor:
    """Rows of this process, sent through Spark and back in their order."""

    runtime = Runtime("native", "a pipeline of Spark ML, which Spark itself applies")

    def __init__(self, path: Path, signature: Signature) -> None:
        self._path = path
        self._declared = signature.outputs and prediction_schema(signature)

    def predict(self, batch: pa.RecordBatch) -> object:
        """The declared prediction columns; without a declaration `prediction`."""
        rows = pa.array(range(batch.num_rows), pa.int64())
        table = pa.table([rows, *batch.columns], [_ROW, *batch.schema.names])
        frame = self._spark.createDataFrame(table)
        inputs = [(name, sf.col(quoted(name))) for name in batch.schema.names]
        declared = self._declared or pa.schema([pa.field("prediction", pa.float64())])
        scored = answered(frame, self._pipeline, inputs, sf.col(_ROW), declared)
        try:
            answer = scored.toArrow().sort_by(KEPT)
        except SPARK_FAILURES as exc:
            raise PredictionError(f"Spark failed to apply the pipeline: {reason_of(exc)}") from exc
        if answer.num_rows != batch.num_rows:
            raise PredictionError(
                f"the pipeline answered {answer.num_rows} rows for {batch.num_rows}; a stage "
                "leaves rows out that it cannot take"
            )
        columns = answer.drop_columns([KEPT]).rename_columns(declared.names)
        if len(declared) == 1:
            return columns.column(0).combine_chunks()
        return columns

    @cached_property
    def _spark(self) -> SparkSession:
        """The session that runs here, or else a small one of this machine."""
        session = SparkSession.getActiveSession()
        if session is not None:
            return session
        folder = node_folder()
        prepare_environment(find_java(folder, os.environ), os.environ, folder)
        builder = SparkSession.builder.master("local[*]").appName("sparkscore")
        return builder.config("spark.ui.enabled", "false").getOrCreate()

    @cached_property
    def _pipeline(self) -> PipelineModel:
        return load_pipeline(self._spark, self._path)
