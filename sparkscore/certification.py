"""Prove on a user's own rows that a model scores the same whichever way it is run.

The direct call of the model's library on all rows at once is what every other way is compared
with: the engines over few and many files, batches of any size, our own runtimes, and MLflow.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparkscore.errors import EngineUnfitError, SourceError, SparkscoreError, shown
from sparkscore.flavors import load_predictor
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, pandas_frame
from sparkscore.flavors.load import flavor_of
from sparkscore.flavors.registered import SPARK
from sparkscore.job_planning import prepare
from sparkscore.names import ModelName
from sparkscore.package import open_package
from sparkscore.package.params import plain_params
from sparkscore.provenance import environment, run_origin
from sparkscore.scoring.batch import BatchTask, bind_columns, score_batch
from sparkscore.scoring.casts import can_hold_missing
from sparkscore.scoring.certificate import Agreement, Certificate, Check, compared
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.scoring.outputs import prediction_columns
from sparkscore.scoring.plan import ScoringPlan, ScoringRequest, plan_scoring
from sparkscore.scoring.rejects import is_rejected, setting_aside
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from sparkscore.flavors.base import Predictor

Announce = Callable[[str], None]

ENGINES = ("files", "arrow", "pandas")
_N_FILES = 7
_MAX_SINGLE_ROWS = 200
"""Rows that are scored one by one."""
_MLFLOW_TIMEOUT_S = 900
_ERROR_LINE = re.compile(r"^[\w.]+(?:Error|Exception)\b.*", re.MULTILINE)

_MLFLOW_SCRIPT = """
import json, sys
import numpy as np, pandas as pd
import mlflow.pyfunc
folder, rows, answers, names, has_lists, params = sys.argv[1:]
given = {"params": json.loads(params)} if json.loads(params) else {}
answer = mlflow.pyfunc.load_model(folder).predict(pd.read_parquet(rows), **given)
names = json.loads(names)
if not isinstance(answer, pd.DataFrame):
    answer = np.asarray(answer)
    if answer.shape[1:] == (1,) and not json.loads(has_lists):
        answer = answer[:, 0]
    if answer.ndim == 1 or len(names) == 1:
        answer = pd.DataFrame({names[0]: list(answer) if answer.ndim > 1 else answer})
    else:
        answer = pd.DataFrame(answer, columns=names)
answer.columns = [str(name) for name in answer.columns]
answer.reset_index(drop=True).to_parquet(answers)
"""


@dataclass(frozen=True)
class SampleRequest:
    """Which rows a model is certified on, and how strictly.

    Attributes:
        spec: The table, its version and a filter.
        columns: Model column -> source column, where the names differ.
        params: What the model is given beside rows, in the place of its defaults.
        predict: The function to ask; None: the packaged one.
        n_rows: At most so many rows; which ones is Spark's choice.
        must_be_equal: Whether floats that differ in their last digits deny the certificate.
        scratch: Folder that driver and executors share, for copies of the sample; None: a
            temporary one of this machine.
        mlflow_python: Python of an environment with MLflow; None: this one, if it has it.
    """

    spec: SourceSpec
    columns: Mapping[str, str]
    params: Mapping[str, object] = field(default_factory=dict)
    predict: str | None = None
    n_rows: int = 10_000
    must_be_equal: bool = False
    scratch: Path | None = None
    mlflow_python: Path | None = None


def certify(
    workspace: Workspace, uri: str, request: SampleRequest, announce: Announce
) -> Certificate:
    """Score a sample in all ways there are and compare; kept as a run, and with the version.

    Args:
        workspace: What the settings name.
        uri: The model's URI; an alias is resolved once.
        request: The sample.
        announce: Told each step in one line.

    Raises:
        SparkscoreError: Model or sample cannot be used at all; a way of scoring that fails or
            differs is a check of the certificate.
    """
    with tempfile.TemporaryDirectory(prefix="certify-", dir=request.scratch) as scratch:
        rows = _Sampled.of(workspace, uri, request, Path(scratch), announce)
        certificate = Certificate(
            model=rows.plan.model.as_facts(),
            sample=_sample_facts(rows),
            runtime=rows.runtime,
            checks=tuple(_checks(workspace, rows, request, announce)),
            must_be_equal=request.must_be_equal,
        )
    _keep(workspace, certificate)
    return certificate


@dataclass(frozen=True)
class _Sampled:
    """The sample and what the model's own library says of it.

    Attributes:
        plan: Of the model over the sampled table.
        uri: The model's URI, pinned.
        folder: Holds the copies `whole` (one file) and `scattered`.
        row: Name of the column that numbers the rows.
        batch: n_rows x number and source columns.
        task: The bindings, with the workspace's policy for invalid rows.
        predictor: Scores as workers do.
        runtime: Who that is.
        expected: Number and predictions of all valid rows.
    """

    plan: ScoringPlan
    uri: str
    folder: Path
    row: str
    batch: pa.RecordBatch
    task: BatchTask
    predictor: Predictor
    runtime: dict[str, object]
    expected: pa.Table

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        uri: str,
        request: SampleRequest,
        folder: Path,
        announce: Announce,
    ) -> _Sampled:
        """Copy the sample and score it directly."""
        from sparkscore.spark.sampling import rows_of, write_sample, write_scattered

        announce(f"Resolving {uri}")
        model = workspace.model(uri, request.predict)
        engine = workspace.spark_engine("arrow")
        source = engine.open(request.spec)
        asked = ScoringRequest(
            "certify", target="certificate", columns=request.columns, params=request.params
        )
        plan = plan_scoring(model, source.table, asked)
        names = list(dict.fromkeys(b.source.name for b in plan.bindings if b.source is not None))
        row = "row"
        while row in (*names, *plan.score_columns):
            row += "_"
        announce(f"Copying at most {request.n_rows} rows of {source.table.uri}")
        write_sample(source, names, row, request.n_rows, str(folder / "whole"))
        whole = engine.open(SourceSpec(str(folder / "whole"), "delta"))
        write_scattered(whole, _N_FILES, str(folder / "scattered"))
        rows = rows_of(whole, [row, *names]).sort_by(row).combine_chunks()
        if not rows.num_rows:
            raise SourceError(
                f"source {source.table.uri!r} has no row with filter {source.table.where!r}; a "
                "model is certified on rows"
            )
        task = BatchTask(
            model.label,
            plan.bindings,
            plan.predictions,
            setting_aside(workspace.settings.scoring.on_invalid),
            params=plan.params,
        )
        announce(f"Calling {model.label} directly on {rows.num_rows} rows")
        package = open_package(model.folder)
        native = load_predictor(package, workspace.trust, TreeRuntime.NATIVE, model.predict)
        chosen = load_predictor(package, workspace.trust, workspace.tree_runtime, model.predict)
        batch = rows.to_batches()[0]
        return cls(
            plan=plan,
            uri=uri if model.version is None else model.uri,
            folder=folder,
            row=row,
            batch=batch,
            task=task,
            predictor=chosen,
            runtime={"name": chosen.runtime.name, "reason": chosen.runtime.reason},
            expected=_scored(native, batch, task, row),
        )


def _checks(
    workspace: Workspace, rows: _Sampled, request: SampleRequest, announce: Announce
) -> Iterator[Check]:
    n = rows.batch.num_rows
    yield _checked(
        f"{rows.runtime['name']}, one batch of {n}",
        rows.expected,
        partial(_scored, rows.predictor, rows.batch, rows.task, rows.row),
    )
    limit = min(workspace.batch_limits.max_rows, max(2, n // 3))
    for size in dict.fromkeys((0, 1, limit - 1, limit, limit + 1)):
        part = rows.batch.slice(0, min(n, _MAX_SINGLE_ROWS) if size == 1 else size and n)
        step = max(1, size)
        yield _checked(
            f"batches of {size}",
            _of_rows(rows.expected, part),
            partial(_scored_in_pieces, rows, part, step),
        )
    is_pipeline = flavor_of(open_package(rows.plan.model.folder)) == SPARK
    for engine in (SPARK,) if is_pipeline else ENGINES:
        for layout in ("whole", "scattered"):
            name = f"{engine} engine, {_N_FILES if layout == 'scattered' else 1} files"
            announce(f"Scoring with the {name}")
            yield _checked(
                name,
                rows.expected,
                partial(_job, workspace, rows, request, engine, layout),
            )
    if rows.plan.model.predict is not None:
        why = "it asks a model by the function of its package only"
        yield Check("mlflow.pyfunc", Agreement.SKIPPED, detail=why)
        return
    python = request.mlflow_python or (Path(sys.executable) if find_spec("mlflow") else None)
    if python is None:
        why = "not installed here; --mlflow-python names an environment that has it"
        yield Check("mlflow.pyfunc", Agreement.SKIPPED, detail=why)
        return
    announce("Scoring with mlflow.pyfunc")
    taken = _taken_by_mlflow(rows)
    left_out = n - taken.num_rows
    name = f"mlflow.pyfunc{f' without the {left_out} rows that miss integers' if left_out else ''}"
    yield _checked(name, _of_rows(rows.expected, taken), partial(_mlflow, rows, taken, python))


def _checked(name: str, expected: pa.Table, score: Callable[[], pa.Table]) -> Check:
    """The check of one way of scoring; a way that cannot take the job is skipped."""
    try:
        return compared(name, expected, score())
    except (EngineUnfitError, _MlflowRefusedError) as exc:
        return Check(name, Agreement.SKIPPED, detail=str(exc))
    except SparkscoreError as exc:
        return Check(name, Agreement.DIFFERENT, expected.num_rows, detail=f"[{exc.code}] {exc}")


def _scored(predictor: Predictor, batch: pa.RecordBatch, task: BatchTask, row: str) -> pa.Table:
    """Number and predictions of the valid rows of a batch."""
    scores = score_batch(predictor, batch, task).predictions
    numbers = batch.column(row).filter(scores.is_valid())
    columns = [numbers, *scores.drop_null().flatten()]
    return pa.table(columns, names=[row, *task.predictions.names])


def _scored_in_pieces(rows: _Sampled, part: pa.RecordBatch, step: int) -> pa.Table:
    starts = range(0, max(1, part.num_rows), step)
    return pa.concat_tables(
        _scored(rows.predictor, part.slice(start, step), rows.task, rows.row) for start in starts
    )


def _of_rows(expected: pa.Table, part: pa.RecordBatch) -> pa.Table:
    row = expected.column_names[0]
    return expected.filter(pc.is_in(expected.column(row), part.column(row)))


def _job(
    workspace: Workspace, rows: _Sampled, request: SampleRequest, engine: str, layout: str
) -> pa.Table:
    """The score table that a whole job makes of a copy of the sample."""
    from sparkscore.spark.sampling import rows_of

    target = str(rows.folder / f"{engine}-{layout}")
    described: dict[str, object] = {
        "name": "certify",
        "model": rows.uri,
        "source.uri": str(rows.folder / layout),
        "target.uri": target,
        "key": [rows.row],
        "on_invalid": rows.task.on_invalid.value,
        "max_rejects": "100%",
        # Spark's own pipelines have one engine, which nobody asks for by name.
        "engine": "auto" if engine == SPARK else engine,
    }
    if request.predict is not None:
        described["predict"] = request.predict
    described |= {f"columns.{name}": source for name, source in request.columns.items()}
    described |= {f"params.{name}": value for name, value in request.params.items()}
    prepared = prepare(workspace, workspace.job(None, described).values, None, lambda _: None)
    outcome = prepared.run(RunFacts(uuid.uuid4().hex, dt.datetime.now(dt.UTC)))
    outcome.check_books()
    scores = workspace.spark_engine("arrow").open(SourceSpec(target, "delta"))
    return rows_of(scores, [rows.row, *rows.plan.predictions.names])


class _MlflowRefusedError(Exception):
    """MLflow is there, but does not score the model, which says nothing about our answers."""


def _taken_by_mlflow(rows: _Sampled) -> pa.RecordBatch:
    """The rows that MLflow can be given: it refuses missing values of optional integers."""
    inputs, unfit = bind_columns(rows.batch, rows.task)
    n_rows = inputs.num_rows
    refused = pa.array(np.zeros(n_rows, bool)) if unfit is None else is_rejected(unfit, n_rows)
    for column in inputs.columns:
        if not can_hold_missing(column.type):
            refused = pc.or_(refused, column.is_null())
    return rows.batch.filter(pc.invert(refused))


def _mlflow(rows: _Sampled, taken: pa.RecordBatch, python: Path) -> pa.Table:
    inputs, _ = bind_columns(taken, rows.task)
    given, answers = rows.folder / "rows.parquet", rows.folder / "answers.parquet"
    frame = pandas_frame(inputs, column_inputs(rows.plan.model.signature))
    # Parquet knows no numbers as names.
    frame.rename(columns=str).to_parquet(given)
    declared = rows.task.predictions
    # Its own environment must not see the modules of this one.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(  # noqa: S603 - the user names the program
            [
                *(str(python), "-W", "ignore", "-c", _MLFLOW_SCRIPT),
                *(str(rows.plan.model.folder), str(given), str(answers)),
                json.dumps(declared.names),
                json.dumps(any(pa.types.is_list(field.type) for field in declared)),
                json.dumps(plain_params(rows.task.params)),
            ],
            capture_output=True,
            text=True,
            timeout=_MLFLOW_TIMEOUT_S,
            check=False,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _MlflowRefusedError(f"{python} cannot run it: {exc}") from exc
    if done.returncode:
        said = _ERROR_LINE.findall(done.stderr) or ["it said nothing"]
        raise _MlflowRefusedError(f"MLflow does not score it: {shown(said[-1])}")
    columns = prediction_columns(pq.read_table(answers), declared, inputs.num_rows)
    return pa.table([taken.column(rows.row), *columns], names=rows.expected.column_names)


def _sample_facts(rows: _Sampled) -> dict[str, object]:
    source = rows.plan.source
    return {
        "uri": source.uri,
        "version": source.version,
        "where": source.where,
        "predict": rows.plan.model.predict,
        "params": plain_params(rows.task.params),
        "rows": rows.batch.num_rows,
        "rows_rejected": rows.batch.num_rows - rows.expected.num_rows,
    }


def _keep(workspace: Workspace, certificate: Certificate) -> None:
    """Put the certificate on record: a run with its JSON, and tags of the version."""
    model = certificate.model
    is_certified = not certificate.failed
    tracking = workspace.settings.tracking
    with workspace.tracking.start_run(
        "certify",
        tracking.experiment,
        experiment_id=tracking.experiment_id,
        origin=run_origin(),
    ) as run:
        run.log_params(
            {
                "model_uri": str(model["uri"]),
                "model_digest": str(model["digest"]),
                "source": str(certificate.sample["uri"]),
                "source_version": str(certificate.sample["version"]),
            }
        )
        run.log_metrics(
            {
                f"checks_{agreement.value}": sum(
                    check.agreement is agreement for check in certificate.checks
                )
                for agreement in Agreement
            }
        )
        run.log_json(certificate.as_facts(), "certificate.json")
        run.log_json(environment(), "environment.json")
    if isinstance(model["version"], int):
        tags = {
            "sparkscore.certified": str(is_certified).lower(),
            "sparkscore.certificate": f"runs:/{run.run_id}/certificate.json",
        }
        workspace.registry.set_version_tags(ModelName(str(model["name"])), model["version"], tags)
