"""Which cluster a URI means, and what of Hadoop's settings its clients get."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sparkscore.errors import EngineUnfitError, InvalidNameError
from sparkscore.files.filesystem import StorePath, check_place, store_path
from sparkscore.files.hdfs_settings import hdfs_store, site_settings
from sparkscore.files.hdfs_store import HdfsStore

GROUP = {
    "dfs.ha.namenodes.lake": "a, b",
    "dfs.namenode.rpc-address.lake.a": "one:8020",
    "dfs.namenode.rpc-address.lake.b": "two:8020",
}
AT_LAKE = {"fs.defaultFS": "hdfs://lake", **GROUP}


def found(uri: str, settings: dict[str, str]) -> HdfsStore | None:
    return hdfs_store(uri, lambda name: settings.get(name, ""))


@pytest.mark.parametrize(
    ("uri", "settings", "path"),
    [
        ("hdfs://host:9000/a/b", {}, "host:9000/a/b"),
        ("hdfs://host/a", {}, "host:8020/a"),
        ("hdfs://lake/a/", GROUP, "lake/a"),
        ("hdfs:///a", AT_LAKE, "lake/a"),
        ("/a/b", AT_LAKE, "lake/a/b"),
        ("/a/b", {"fs.defaultFS": "hdfs://host"}, "host:8020/a/b"),
    ],
)
def test_cluster_and_path_are_those_that_hadoop_means(
    uri: str, settings: dict[str, str], path: str
) -> None:
    store = found(uri, settings)
    assert store is not None
    assert store_path(store, uri) == StorePath(store, path)
    assert str(store_path(store, uri)) == f"hdfs://{path}"


@pytest.mark.parametrize(
    ("uri", "default"),
    [("/a", ""), ("/a", "file:///"), ("file:///a", "hdfs://host"), ("s3a://b/a", "hdfs://host")],
)
def test_what_lies_elsewhere_has_no_cluster(uri: str, default: str) -> None:
    assert found(uri, {"fs.defaultFS": default}) is None


def test_addresses_of_all_name_nodes_reach_both_clients() -> None:
    store = found("hdfs://lake/a", {**GROUP, "dfs.client.use.datanode.hostname": "true"})
    assert store is not None
    wanted = {**GROUP, "dfs.ha.namenodes.lake": "a,b", "dfs.client.use.datanode.hostname": "true"}
    assert wanted.items() <= store.delta_options.items()


def test_uri_without_a_cluster_is_refused_where_there_is_no_default() -> None:
    with pytest.raises(InvalidNameError, match=r"'hdfs:///a' names no cluster.*fs\.defaultFS"):
        found("hdfs:///a", {"fs.defaultFS": "file:///"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hadoop.security.authentication", "kerberos"),
        ("hadoop.rpc.protection", "privacy"),
        ("dfs.data.transfer.protection", "integrity"),
        ("dfs.encrypt.data.transfer", "true"),
        ("hadoop.security.key.provider.path", "kms://https@keys:9600/kms"),
    ],
)
def test_what_was_not_tested_is_left_to_spark(name: str, value: str) -> None:
    with pytest.raises(EngineUnfitError, match=f"{name} is '{value}'"):
        found("hdfs://host/a", {name: value})


def test_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdfs_native", None)
    with pytest.raises(EngineUnfitError, match=r"'hdfs_native', which is not.*sparkscore\[hdfs\]"):
        found("hdfs://host/a", {})


def test_settings_of_the_machine_are_read_without_a_session(tmp_path: Path) -> None:
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name>"
        "<value>hdfs://lake</value></property></configuration>"
    )
    assert site_settings({"HADOOP_CONF_DIR": str(tmp_path)}) == {"fs.defaultFS": "hdfs://lake"}
    assert site_settings({}) == {}
    (tmp_path / "hdfs-site.xml").write_text("<configuration>")
    with pytest.raises(EngineUnfitError, match=r"hdfs-site\.xml' does not parse"):
        site_settings({"HADOOP_CONF_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        ("hdfs:/a", InvalidNameError, "not of the form hdfs://CLUSTER/FOLDER"),
        ("hdfs://host:8020/", InvalidNameError, "not of the form hdfs://CLUSTER/FOLDER"),
        ("hdfs://me@host/a", EngineUnfitError, "names a user"),
        ("hdfs://host/a?b", EngineUnfitError, "has '?'"),
        ("viewfs://host/a", EngineUnfitError, "lies in viewfs"),
    ],
)
def test_name_that_not_all_libraries_understand_is_refused(
    uri: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        check_place(uri, "source")
    assert said in str(caught.value)
