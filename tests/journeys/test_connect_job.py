"""Whole jobs and the Python API through Spark Connect; a large package travels as a file."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sparkscore import Workspace
from sparkscore.job_planning import prepare
from sparkscore.scoring.engine import RunFacts, SourceSpec
from sparkscore.spark.shipping import FilePackage, ship

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from tests.journeys.conftest import Batch, World

SCRIPT = """
import json, sys
import sparkscore
from sparkscore.cli import main
from sparkscore.spark.shipping import is_connect

workspace = sparkscore.Workspace.open()
spark = workspace.spark
assert is_connect(spark)
codes = [main(args) for args in json.loads(sys.argv[1])]
model = "models:/linear@champion"
rows = spark.read.format("delta").load("./rows".replace(".", sys.argv[2], 1)).where("id < 3")
scored = sparkscore.score(rows, model, workspace=workspace).orderBy("id").collect()
udf = sparkscore.spark_udf(spark, model, workspace=workspace)
called = rows.withColumn("p", udf("x")).orderBy("id").collect()
print(json.dumps([codes, [r["prediction"] for r in scored], [r["p"] for r in called]]))
workspace.close()
"""


def test_connect_appends_replaces_merges_and_calls_models(world: World, batch: Batch) -> None:
    replace_where = ["--mode", "replace", "--replace-where", "id < 1000", "--where", "id < 1000"]
    jobs = [
        ["score", "batch", *batch(key="first")],
        ["score", "batch", *batch(key="second"), *replace_where],
        ["score", "batch", *batch(key="held"), "--mode", "merge", "--check", "min_rows=2001"],
        ["score", "batch", *batch(key="third"), "--mode", "merge", "--check", "min_rows=2000"],
        ["score", "batch", *batch(key="third"), "--mode", "merge"],
    ]
    environ = world.environ | {
        "SPARKSCORE__SPARK__REMOTE": "local[2]",
        "SPARKSCORE__TRUST__ALLOW_CODE": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(jobs), str(world.folder)],
        cwd=world.folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *results, values = map(json.loads, done.stdout.splitlines())
    assert values == [[0, 0, 3, 0, 0], [1.0, 1.25, 1.5], [1.0, 1.25, 1.5]], done.stderr
    outcomes = [(result["status"], result["output"].get("rows", 0)) for result in results]
    assert outcomes == [
        ("succeeded", 2000),
        ("succeeded", 1000),
        ("failed", 0),
        ("succeeded", 2000),
        ("skipped", 0),
    ]
    assert [commit["run_key"] for commit in world.commits("scores")] == ["first", "second", "third"]
    scores = world.scores("scores")
    assert scores["prediction"].to_pylist() == [i / 8 * 2.0 + 1.0 for i in range(2000)]


def test_a_package_above_the_broadcast_limit_travels_as_a_file(
    world: World, spark: SparkSession
) -> None:
    workspace = Workspace.open(overrides={"trust.allow_code": True})
    job = workspace.job(
        None,
        {
            "model": "models:/linear@champion",
            "source.uri": str(world.folder / "rows"),
            "target.uri": str(world.folder / "scores"),
            "key": ["id"],
        },
    ).values
    prepared = prepare(workspace, job, "k1", lambda _: None)
    engine = replace(workspace.spark_engine("arrow"), broadcast_max_bytes=1)
    source = engine.open(SourceSpec(job.source.uri))
    sink = workspace.delta_sink(job.target.uri)
    facts = RunFacts(run_id="0" * 32, scored_at=datetime.now(UTC))
    outcome = engine.run(prepared.plan, source, sink, facts)
    assert outcome.n_scored == 2000
    model = prepared.plan.model
    assert isinstance(ship(spark, model.folder, model.digest, 1), FilePackage)
    sent = [path for path in spark.sparkContext.listFiles if model.digest in path]
    assert sent
