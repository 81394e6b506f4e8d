from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.errors import AnalysisException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from sparkscore.spark.defaults import DELTA_EXTENSION, joined, session_conf, with_tries
from sparkscore.spark.jars import JarSource
from sparkscore.spark.java import find_java, spark_home
from sparkscore.spark.launch import archive_files, prepare_environment
from sparkscore.spark.session import SessionSettings, open_session, submit_options

JOB = """
import sys
from pathlib import Path
from sparkscore.errors import SparkscoreError
from sparkscore.spark.jars import JarSource
from sparkscore.spark.session import SessionSettings, open_session, stop_session

cache, table, master = sys.argv[1:4]
jars = JarSource(cache=Path(cache), home=Path(cache))
small = {"spark.databricks.delta.snapshotPartitions": "2", "spark.sql.shuffle.partitions": "2"}
try:
    spark = open_session(SessionSettings(jars=jars, master=master, conf=small | CONF))
except SparkscoreError as exc:
    sys.exit(f"{exc.code}: {exc}")
BODY
stop_session(spark)
"""

WRITE = """
spark.range(0, 6, 1, 3).write.format("delta").save(table)
print("rows", spark.read.format("delta").load(table).count(), spark.conf.get("spark.master"))
"""

WRITE_AND_MERGE = """
spark.range(0, 6, 1, 3).write.format("delta").save(table)
spark.sql(
    f"MERGE INTO delta.`{table}` t USING (SELECT id + 3 AS id FROM range(6)) s ON t.id = s.id "
    "WHEN NOT MATCHED THEN INSERT *"
)
print("rows", spark.read.format("delta").load(table).count(), spark.conf.get("spark.master"))
"""


def run_job(
    tmp_path: Path,
    cache: Path,
    body: str = WRITE,
    *,
    launcher: tuple[str, ...] = (sys.executable, "-W", "error"),
    conf: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `body` with a session `spark` and a path `table`, in a process and folder of its own."""
    (tmp_path / "cwd").mkdir()
    script = tmp_path / "job.py"
    script.write_text(JOB.replace("BODY", textwrap.dedent(body)).replace("CONF", repr(conf or {})))
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYSPARK_")}
    return subprocess.run(
        [*launcher, str(script), str(cache), str(tmp_path / "table"), "local[2]"],
        cwd=tmp_path / "cwd",
        env={**inherited, "PYTHONPATH": str(Path(__file__).parents[2]), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def submit(cache: Path, *options: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command of a real `spark-submit`, and the environment that it needs."""
    environ: dict[str, str] = {}
    prepare_environment(find_java(cache, os.environ), environ, cache)
    return (str(spark_home() / "bin" / "spark-submit"), *options), environ


def test_a_session_writes_and_reads_delta(spark: SparkSession, tmp_path: Path) -> None:
    spark.range(3).write.format("delta").save(str(tmp_path / "t"))
    history = spark.sql(f"DESCRIBE HISTORY delta.`{tmp_path / 't'}`").collect()
    assert [row["operation"] for row in history] == ["WRITE"]


def test_the_running_session_is_used_again(spark: SparkSession, delta_jars: JarSource) -> None:
    again = open_session(SessionSettings(jars=delta_jars, master="local[7]"))
    assert again.sparkContext is spark.sparkContext


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("SQLQueryContextLogger", lambda spark: spark.sql("SELECT maxi(1)")),
        ("DataFrameQueryContextLogger", lambda spark: spark.range(1).select(sf.col("maxi"))),
    ],
)
def test_javas_trace_of_a_query_that_is_no_good_is_not_told(
    name: str, query: Callable[[SparkSession], object], spark: SparkSession
) -> None:
    told: list[logging.LogRecord] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record)

    logger, kept = PySparkLogger.getLogger(name), Kept()
    logger.addHandler(kept)
    try:
        with pytest.raises(AnalysisException, match="maxi"):
            query(spark)
        assert told == []
        logger.warning("what is no failed query")
        assert len(told) == 1
    finally:
        logger.removeHandler(kept)


def test_local_sessions_listen_on_loopback_only(spark: SparkSession) -> None:
    assert spark.conf.get("spark.driver.host") == "127.0.0.1"
    assert spark.conf.get("spark.driver.bindAddress") == "127.0.0.1"
    assert spark.sparkContext.uiWebUrl is None


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_the_jvm_maps_the_archived_classes(spark: SparkSession, delta_jars: JarSource) -> None:
    gateway = spark.sparkContext._gateway
    assert gateway is not None
    maps = Path(f"/proc/{gateway.proc.pid}/maps").read_text()
    java = find_java(delta_jars.cache, os.environ)
    assert [str(file) for file in archive_files(java, delta_jars.cache) if str(file) in maps]


def test_a_task_that_fails_once_is_tried_again(spark: SparkSession, tmp_path: Path) -> None:
    marker = tmp_path / "failed-before"

    def fail_once(_rows: object) -> list[int]:
        if not marker.exists():
            marker.touch()
            raise RuntimeError("first try")
        return [1]

    assert spark.sparkContext.parallelize([0], 1).mapPartitions(fail_once).collect() == [1]


def test_a_session_leaves_the_working_folder_and_stdout_clean(
    tmp_path: Path, delta_jars: JarSource
) -> None:
    done = run_job(tmp_path, delta_jars.cache)
    assert (done.returncode, done.stdout) == (0, "rows 6 local[2,4]\n"), done.stderr
    assert list((tmp_path / "cwd").iterdir()) == []
    assert "WARN spark" not in done.stderr


def test_the_wheels_java_runs_a_session(tmp_path: Path, delta_jars: JarSource) -> None:
    wheels = find_java(delta_jars.cache, {"PATH": ""})
    done = run_job(tmp_path, delta_jars.cache, environ={"JAVA_HOME": str(wheels.home)})
    assert (done.returncode, done.stdout) == (0, "rows 6 local[2,4]\n"), done.stderr


def test_a_bare_spark_submit_gets_delta_from_the_cache_and_its_own_words_win(
    tmp_path: Path, delta_jars: JarSource
) -> None:
    launcher, environ = submit(
        delta_jars.cache,
        *("--master", "local[2]", "--conf", "spark.sql.shuffle.partitions=3", "--name", "mine"),
    )
    asked = (
        'print(spark.conf.get("spark.sql.shuffle.partitions"), spark.conf.get("spark.app.name"))'
    )
    body = f"{WRITE_AND_MERGE}\n{asked}"
    done = run_job(tmp_path, delta_jars.cache, body, launcher=launcher, environ=environ)
    assert (done.returncode, done.stdout) == (0, "rows 9 local[2]\n3 mine\n"), done.stderr


def test_a_running_session_without_delta_is_refused_with_the_options(
    tmp_path: Path, delta_jars: JarSource
) -> None:
    launcher, environ = submit(delta_jars.cache)
    script = tmp_path / "plain.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom pyspark.sql import SparkSession\n"
        "from sparkscore.errors import ConfigError\n"
        "from sparkscore.spark.jars import JarSource\n"
        "from sparkscore.spark.session import SessionSettings, open_session\n"
        "SparkSession.builder.getOrCreate()\n"
        "try:\n    open_session(SessionSettings(jars=JarSource(cache=Path(sys.argv[1]))))\n"
        "except ConfigError as exc:\n    print(exc)\n"
    )
    done = subprocess.run(
        [*launcher, str(script), str(delta_jars.cache)],
        env={**os.environ, **environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "is without Delta" in done.stdout
    assert f"--conf spark.sql.extensions={DELTA_EXTENSION}" in done.stdout


def test_a_jvm_that_ends_at_once_is_a_java_error(tmp_path: Path, delta_jars: JarSource) -> None:
    done = run_job(
        tmp_path, delta_jars.cache, conf={"spark.driver.extraJavaOptions": "-javaagent:/none.jar"}
    )
    assert done.returncode == 1
    assert "JAVA_UNUSABLE: the JVM of JAVA_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_told_as_such(tmp_path: Path, delta_jars: JarSource) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        conf = {"spark.driver.port": port, "spark.port.maxRetries": "0"}
        done = run_job(tmp_path, delta_jars.cache, conf=conf)
    assert "PORT_TAKEN: " in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("local", "local[1,4]"),
        ("local[*]", "local[*,4]"),
        ("local[3]", "local[3,4]"),
        ("local[3,1]", "local[3,1]"),
        ("local-cluster[2,1,512]", "local-cluster[2,1,512]"),
        ("spark://127.0.0.1:7077", "spark://127.0.0.1:7077"),
        ("yarn", "yarn"),
    ],
)
def test_only_local_masters_without_a_number_of_failures_get_tries(
    given: str, expected: str
) -> None:
    assert with_tries(given) == expected


def test_the_users_settings_win_and_lists_are_added_to(tmp_path: Path) -> None:
    own = {
        "spark.sql.session.timeZone": "Europe/Berlin",
        "spark.sql.extensions": "org.example.Own",
        "spark.jars": "own.jar",
        "spark.driver.extraJavaOptions": "-Dmine=1",
    }
    conf = session_conf(own, "local[2]", [Path("/jars/delta.jar")], tmp_path)
    assert conf["spark.sql.session.timeZone"] == "Europe/Berlin"
    assert conf["spark.sql.extensions"] == f"org.example.Own,{DELTA_EXTENSION}"
    assert conf["spark.jars"] == "own.jar,/jars/delta.jar"
    assert conf["spark.driver.extraJavaOptions"].endswith(" -Dmine=1")


def test_clusters_get_no_settings_of_one_machine(tmp_path: Path) -> None:
    conf = session_conf({}, "spark://127.0.0.1:7077", [], tmp_path)
    assert "spark.driver.host" not in conf
    assert "spark.sql.shuffle.partitions" not in conf


def test_a_list_keeps_one_of_each() -> None:
    assert joined("a, b", ["b", "c"]) == "a,b,c"
    assert joined(None, ["a"]) == "a"


def test_the_options_name_the_package_where_no_jars_are_cached() -> None:
    assert submit_options(None).startswith("--packages io.delta:delta-spark_")
    assert submit_options((Path("/a.jar"), Path("/b.jar"))).startswith("--jars /a.jar,/b.jar ")
