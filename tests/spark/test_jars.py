from __future__ import annotations

import functools
import hashlib
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sparkscore.errors import ConfigError, JarsUnavailableError
from sparkscore.spark.jars import KAFKA, JarSource, find_jars, keep_jars, resolve_jars
from sparkscore.spark.java import Java, find_java, spark_home

VERSION = "9.9.9"
MODULE = "delta-spark_4.2_2.13"
SHIPPED = "jackson-databind"  # PySpark has it


class Repository:
    """A Maven repository on loopback; `asked` holds the paths of all requests."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002
                asked.append(self.path)

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def publish(folder: Path, group: str, module: str, needs: tuple[tuple[str, str], ...] = ()) -> None:
    """Put a pom and an empty jar where Maven would look for them, with their checksums."""
    place = folder.joinpath(*group.split("."), module, VERSION)
    place.mkdir(parents=True)
    dependencies = "".join(
        f"<dependency><groupId>{g}</groupId><artifactId>{m}</artifactId>"
        f"<version>{VERSION}</version></dependency>"
        for g, m in needs
    )
    pom = place / f"{module}-{VERSION}.pom"
    pom.write_text(
        "<project><modelVersion>4.0.0</modelVersion>"
        f"<groupId>{group}</groupId><artifactId>{module}</artifactId><version>{VERSION}</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )
    jar = place / f"{module}-{VERSION}.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    for path in (pom, jar):
        digest = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
        path.with_name(path.name + ".sha1").write_text(digest)


@pytest.fixture(scope="module")
def repository_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    publish(folder, "io.delta", MODULE, (("org.example", "storage"), ("org.example", SHIPPED)))
    publish(folder, "org.example", "storage")
    publish(folder, "org.example", SHIPPED)
    return folder


@pytest.fixture
def repository(repository_folder: Path) -> Iterator[Repository]:
    server = Repository(repository_folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Java:
    return find_java(tmp_path_factory.mktemp("java"), os.environ)


@pytest.fixture
def closed_url() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def source(tmp_path: Path, **changes: Path) -> JarSource:
    return JarSource(cache=tmp_path / "cache", version=VERSION, home=tmp_path, **changes)


def write_maven_settings(home: Path, text: str) -> None:
    (home / ".m2").mkdir()
    (home / ".m2" / "settings.xml").write_text(
        f'<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0">{text}</settings>'
    )


def mirror(url: str, of: str = "central") -> str:
    return f"<mirror><id>own</id><mirrorOf>{of}</mirrorOf><url>{url}</url></mirror>"


def names(jars: tuple[Path, ...]) -> list[str]:
    return [jar.name for jar in jars]


def test_jars_come_from_the_mirror_of_the_users_maven_settings(
    tmp_path: Path, repository: Repository, java: Java
) -> None:
    write_maven_settings(tmp_path, f"<mirrors>{mirror(repository.url, '*,!own')}</mirrors>")
    told: list[str] = []
    jars = resolve_jars(source(tmp_path), java, {}, told.append)
    assert names(jars) == [f"{MODULE}-{VERSION}.jar", f"storage-{VERSION}.jar"]
    assert told == [f"Fetching the jars of Delta {VERSION} into {jars[0].parent}"]


def test_what_pyspark_ships_is_not_fetched(
    tmp_path: Path, repository: Repository, java: Java
) -> None:
    write_maven_settings(tmp_path, mirror(repository.url))
    resolve_jars(source(tmp_path), java, {})
    assert not any(SHIPPED in path for path in repository.asked)


def test_fetched_jars_need_no_network_again(
    tmp_path: Path, repository_folder: Path, java: Java
) -> None:
    server = Repository(repository_folder)
    write_maven_settings(tmp_path, mirror(server.url))
    fetched = resolve_jars(source(tmp_path), java, {})
    server.stop()
    assert resolve_jars(source(tmp_path), java, {}) == fetched


def test_repositories_of_profiles_are_asked_where_no_mirror_is_named(
    tmp_path: Path, repository: Repository, java: Java
) -> None:
    own = f"<repository><id>own</id><url>{repository.url}</url></repository>"
    write_maven_settings(tmp_path, f"{mirror('http://127.0.0.1:9', 'other')}{own}")
    assert len(resolve_jars(source(tmp_path), java, {})) == 2


def test_named_ivy_settings_come_before_mavens(
    tmp_path: Path, repository: Repository, closed_url: str, java: Java
) -> None:
    write_maven_settings(tmp_path, mirror(closed_url))
    settings = tmp_path / "own.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="own"/><resolvers>'
        f'<ibiblio name="own" m2compatible="true" root="{repository.url}"/>'
        "</resolvers></ivysettings>"
    )
    assert len(resolve_jars(source(tmp_path, ivy_settings=settings), java, {})) == 2


def test_a_repository_behind_a_proxy_is_reached_through_it(
    tmp_path: Path, repository: Repository, java: Java
) -> None:
    write_maven_settings(tmp_path, mirror("http://maven.invalid"))
    # The server takes any request, as a proxy does: the path then begins with the whole address.
    with pytest.raises(JarsUnavailableError):
        resolve_jars(source(tmp_path), java, {"HTTP_PROXY": repository.url})
    assert any(path.startswith("http://maven.invalid/io/delta/") for path in repository.asked)


def test_no_network_is_told_with_what_was_tried_and_two_cures(
    tmp_path: Path, closed_url: str, java: Java
) -> None:
    write_maven_settings(tmp_path, mirror(closed_url))
    with pytest.raises(JarsUnavailableError) as caught:
        resolve_jars(source(tmp_path), java, {})
    message = str(caught.value)
    assert f"{closed_url} from '{tmp_path}/.m2/settings.xml'" in message
    assert "Run 'sparkscore setup'" in message
    assert "spark.jars" in message
    assert caught.value.retryable


def test_a_failed_fetch_leaves_nothing_that_looks_complete(
    tmp_path: Path, closed_url: str, java: Java
) -> None:
    write_maven_settings(tmp_path, mirror(closed_url))
    with pytest.raises(JarsUnavailableError):
        resolve_jars(source(tmp_path), java, {})
    assert find_jars(source(tmp_path)) is None
    assert {entry.suffix for entry in (tmp_path / "cache" / "jars").iterdir()} <= {".lock"}


def test_a_cache_without_its_marker_is_fetched_anew(
    tmp_path: Path, repository: Repository, java: Java
) -> None:
    half = tmp_path / "cache" / "jars" / f"delta-{VERSION}"
    half.mkdir(parents=True)
    (half / "half.jar").touch()
    write_maven_settings(tmp_path, mirror(repository.url))
    assert "half.jar" not in names(resolve_jars(source(tmp_path), java, {}))


def test_maven_settings_that_do_not_parse_are_named(tmp_path: Path, java: Java) -> None:
    write_maven_settings(tmp_path, "<mirrors>")
    with pytest.raises(ConfigError, match=r"settings\.xml' do not parse"):
        resolve_jars(source(tmp_path), java, {})


def test_named_ivy_settings_that_do_not_exist_are_refused(tmp_path: Path, java: Java) -> None:
    with pytest.raises(ConfigError, match="which is not a file"):
        resolve_jars(source(tmp_path, ivy_settings=tmp_path / "none.xml"), java, {})


def test_a_folder_of_jars_is_taken_as_it_is(tmp_path: Path, java: Java) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name in (f"io.delta_{MODULE}-{VERSION}.jar", "delta-storage-1.jar", "readme.txt"):
        (folder / name).touch()
    jars = resolve_jars(source(tmp_path, folder=folder), java, {})
    assert names(jars) == ["delta-storage-1.jar", f"io.delta_{MODULE}-{VERSION}.jar"]


@pytest.mark.parametrize("made", [True, False], ids=["empty", "absent"])
def test_a_folder_without_delta_is_refused(tmp_path: Path, *, made: bool) -> None:
    folder = tmp_path / "own"
    if made:
        folder.mkdir()
    with pytest.raises(ConfigError, match="sparkscore setup"):
        find_jars(source(tmp_path, folder=folder))


def test_jars_kept_from_a_folder_need_no_network(tmp_path: Path, java: Java) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / f"{MODULE}-{VERSION}.jar").touch()
    kept = keep_jars(source(tmp_path), folder)
    folder.rename(tmp_path / "gone")
    assert resolve_jars(source(tmp_path), java, {}) == kept
    assert names(kept) == [f"{MODULE}-{VERSION}.jar"]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, java: Java) -> None:
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    with pytest.raises(JarsUnavailableError, match="Make that folder writable"):
        resolve_jars(source(tmp_path), java, {})


def test_jars_of_kafka_are_those_of_the_installed_spark(
    tmp_path: Path, repository: Repository, java: Java
) -> None:
    write_maven_settings(tmp_path, mirror(repository.url))
    with pytest.raises(JarsUnavailableError, match="sparkscore setup --kafka"):
        resolve_jars(source(tmp_path), java, {}, bundle=KAFKA)
    (core,) = (spark_home() / "jars").glob("spark-core_*.jar")
    release = core.stem.partition("-")[2].partition("-")[2]
    connector = f"/org/apache/spark/spark-sql-kafka-0-10_2.13/{release}/"
    assert any(path.startswith(connector) for path in repository.asked)
    assert find_jars(source(tmp_path), bundle=KAFKA) is None


def test_folder_of_jars_without_kafka_is_told(tmp_path: Path) -> None:
    (tmp_path / f"{MODULE}-{VERSION}.jar").touch()
    with pytest.raises(ConfigError, match="has no spark-sql-kafka"):
        find_jars(source(tmp_path, folder=tmp_path), bundle=KAFKA)
