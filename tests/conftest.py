"""Fixtures that several rooms share: one Spark session a test run, one cluster on demand."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from sparkscore.conf.settings import default_cache_folder
from sparkscore.spark.class_archive import make_class_archive
from sparkscore.spark.jars import JarSource, resolve_jars
from sparkscore.spark.java import find_java, spark_home
from sparkscore.spark.launch import LAUNCH_OPTIONS, prepare_environment
from sparkscore.spark.session import SessionSettings, open_session, stop_session
from sparkscore.testing import warm_daemon
from sparkscore.testing.hdfs_cluster import HdfsCluster, running_cluster
from sparkscore.testing.kafka_broker import KafkaBroker, running_kafka
from sparkscore.testing.mqtt_broker import MqttBroker, running_broker
from sparkscore.testing.postgres_server import PostgresServer, running_postgres
from sparkscore.testing.s3_server import S3Server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkscore.files.filesystem import StorePath

_CLUSTER_START_S = 120
_CLUSTER_STOP_S = 20

# Compiling a plan takes longer than running it over ten rows. Journeys compile theirs, as users do.
_INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
# Failed tasks take their worker with them; in a session of many such tests a new one comes cheap.
_WARM = {"spark.python.daemon.module": warm_daemon.MODULE}
# A test's JVM lives for seconds: code compiled once and quickly is all that it has time for. The
# room for it is that of a JVM which compiles twice, since one without room interprets all else.
# A collector without threads of its own takes a tenth less of a JVM's time where few cores are.
os.environ[LAUNCH_OPTIONS] = (
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC"
)

# Rooms whose files have few tests that take long: whole jobs, kernels, builds, peers.
_LONG_FILES = (
    *("demo", "notebooks", "docs", "environments", "benchmarks", "journeys", "interop"),
    *("spark", "server"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the files, the long ones come first.

    Last come the quick ones, so that no process waits for minutes while another is in a long file.
    """
    if hasattr(config, "workerinput"):  # This is one of several processes.
        n_tests = Counter(item.path for item in items)
        items.sort(key=lambda item: (_place(item.path), -n_tests[item.path]))


def _place(file: Path) -> int:
    room = file.relative_to(Path(__file__).parent).parts[0]
    return _LONG_FILES.index(room) if room in _LONG_FILES else len(_LONG_FILES)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; a test takes a database of its own, or empties a shared one."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mqtt_broker() -> Iterator[MqttBroker]:
    """A real MQTT broker on loopback; a test takes topics of its own."""
    with running_broker() as broker:
        yield broker


@pytest.fixture
def mqtt_sender(mqtt_broker: MqttBroker) -> Iterator[paho.Client]:
    """A client that sends to the broker."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", mqtt_broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


@pytest.fixture(scope="session")
def kafka(spark_cache: Path) -> Iterator[KafkaBroker]:
    """A Kafka broker; a test makes topics of its own."""
    with running_kafka(spark_cache) as broker:
        yield broker


@pytest.fixture(scope="session")
def spark_cache() -> Path:
    """Folder that keeps Java's launcher and Delta's jars from one test run to the next."""
    named = os.environ.get("SPARKSCORE_TEST_CACHE")
    return Path(named) if named else default_cache_folder()


@pytest.fixture(scope="session")
def delta_jars(spark_cache: Path) -> JarSource:
    """Where Delta's jars are; what `sparkscore setup` has not brought here is brought now."""
    source = JarSource(cache=spark_cache)
    java = find_java(spark_cache, os.environ)
    resolve_jars(source, java, os.environ)
    make_class_archive(java, source, os.environ)
    return source


@pytest.fixture(scope="session")
def spark(delta_jars: JarSource) -> Iterator[SparkSession]:
    """The session of all tests in this process: two local slots and tries, with Delta."""
    settings = SessionSettings(
        jars=delta_jars, master="local[2,2]", app_name="tests", conf=_INTERPRETED | _WARM
    )
    session = open_session(settings)
    yield session
    stop_session(session)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server on loopback, for all tests of this process."""
    with S3Server().running() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> StorePath:
    """An empty bucket, to which the AWS variables lead."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture(scope="session")
def hdfs_cluster(
    spark_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HdfsCluster]:
    """A real HDFS on loopback, for all tests of this process."""
    with running_cluster(spark_cache, tmp_path_factory.mktemp("hdfs")) as cluster:
        yield cluster


@pytest.fixture
def hdfs_folder(hdfs_cluster: HdfsCluster) -> StorePath:
    """A folder of HDFS of its own, which is not there yet."""
    return hdfs_cluster.folder(uuid.uuid4().hex)


@pytest.fixture(scope="session")
def standalone_master(spark_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real cluster on loopback: a master and two workers of one core each.

    A test that uses it starts its driver in a process of its own: this one may hold a session.
    """
    folder = tmp_path_factory.mktemp("cluster")
    environ = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_WORKER_DIR": str(folder)}
    prepare_environment(find_java(spark_cache, os.environ), environ, spark_cache)
    environ["SPARK_DAEMON_JAVA_OPTS"] = environ[LAUNCH_OPTIONS]
    port, web_port = _free_port(), _free_port()
    address = f"spark://127.0.0.1:{port}"
    master = ("master.Master", "--port", str(port), "--webui-port", str(web_port))
    worker = ("worker.Worker", "--webui-port", "0", "--cores", "1", "--memory", "1g", address)
    processes = []
    try:
        for i, command in enumerate((master, worker, worker)):
            processes.append(_spark_daemon(command, folder / f"{i}.log", environ))
        _await_workers(web_port, 2, folder)
        yield address
    finally:
        _stop(processes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spark_daemon(
    command: tuple[str, ...], log: Path, environ: dict[str, str]
) -> subprocess.Popen[bytes]:
    name, *options = command
    launcher = spark_home() / "bin" / "spark-class"
    with log.open("wb") as output:
        return subprocess.Popen(
            [launcher, f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1", *options],
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Executors are children: the whole group is ended.
        )


def _await_workers(web_port: int, n_workers: int, folder: Path) -> None:
    deadline = time.monotonic() + _CLUSTER_START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/json/", timeout=5) as answer:
                if json.load(answer)["aliveworkers"] == n_workers:
                    return
        except (OSError, json.JSONDecodeError):
            pass  # The master does not listen yet, or has nothing to say.
        time.sleep(0.2)
    logs = "\n".join(log.read_text()[-2000:] for log in sorted(folder.glob("*.log")))
    pytest.fail(f"no cluster after {_CLUSTER_START_S} s:\n{logs}")


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        try:
            process.wait(_CLUSTER_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
