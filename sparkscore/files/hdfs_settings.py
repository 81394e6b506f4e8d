"""Which cluster a URI means and how it is reached: Hadoop's settings, as Spark has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from sparkscore.errors import EngineUnfitError, InvalidNameError, shown
from sparkscore.files.filesystem import HDFS_SCHEME
from sparkscore.files.hdfs_store import HdfsStore, check_client

_DEFAULT_PLACE = "fs.defaultFS"
"""Where paths without a scheme lie, and URIs that name no cluster."""

_NAME_NODES = "dfs.ha.namenodes"
_ADDRESS = "dfs.namenode.rpc-address"
_READ = (
    "dfs.client.block.write.replace-datanode-on-failure.best-effort",
    "dfs.client.block.write.replace-datanode-on-failure.enable",
    "dfs.client.block.write.replace-datanode-on-failure.policy",
    "dfs.client.use.datanode.hostname",
)
_DEMANDS = {
    "hadoop.security.authentication": "simple",
    "hadoop.rpc.protection": "authentication",
    "dfs.data.transfer.protection": "",
    "dfs.encrypt.data.transfer": "false",
    "hadoop.security.key.provider.path": "",
}
"""What is not tested here, if it is anything else than Hadoop's default."""
_PORT = 8020
_ATTEMPTS = {
    # The library's own default, 15, takes three minutes to say that nobody listens.
    "dfs.client.failover.max.attempts": "4",
}
_SITES = ("core-site.xml", "hdfs-site.xml")


def hdfs_store(uri: str, setting: Callable[[str], str]) -> HdfsStore | None:
    """The store of a table's URI; None where Hadoop would not look for it in HDFS.

    Args:
        uri: The table's located path or URI, which `check_place` has passed.
        setting: The value of a setting of Hadoop; empty: it has none.

    Raises:
        InvalidNameError: Neither the URI nor the settings name a cluster.
        EngineUnfitError: The cluster asks for what only Spark's client is known to do, or the
            client that is used here is not installed.
    """
    cluster = _cluster_of(uri, setting(_DEFAULT_PLACE))
    if cluster is None:
        return None
    check_client()
    for name, usual in _DEMANDS.items():
        if setting(name) not in ("", usual):
            raise EngineUnfitError(
                f"{name} is {setting(name)!r}, which only Spark's client is known to serve"
            )
    group = f"{_NAME_NODES}.{cluster}"
    nodes = [node.strip() for node in setting(group).split(",") if node.strip()]
    addresses = [f"{_ADDRESS}.{cluster}.{node}" for node in nodes]
    # One of the clients takes a space after a comma for a part of the name.
    found = {group: ",".join(nodes)} | {name: setting(name) for name in (*addresses, *_READ)}
    settings = _ATTEMPTS | {name: value for name, value in found.items() if value}
    has_port = bool(nodes) or ":" in cluster
    return HdfsStore(cluster if has_port else f"{cluster}:{_PORT}", tuple(settings.items()))


def _cluster_of(uri: str, default: str) -> str | None:
    parts, at_default = urlsplit(uri), urlsplit(default)
    if parts.scheme not in ("", HDFS_SCHEME):
        return None
    if parts.netloc:
        return parts.netloc
    if at_default.scheme == HDFS_SCHEME and at_default.netloc:
        return at_default.netloc
    if not parts.scheme:
        return None
    raise InvalidNameError(
        f"{shown(uri)} names no cluster, and {_DEFAULT_PLACE} is {default!r}; write "
        f"hdfs://HOST:PORT before the path, or set spark.hadoop.{_DEFAULT_PLACE}"
    )


def site_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Hadoop's settings of this machine, for those who have no session to ask.

    Args:
        environ: Read for HADOOP_CONF_DIR and HADOOP_HOME.

    Raises:
        EngineUnfitError: A file of them does not parse.
    """
    home, found = environ.get("HADOOP_HOME"), dict[str, str]()
    folder = environ.get("HADOOP_CONF_DIR") or (f"{home}/etc/hadoop" if home else None)
    if folder is None:
        return found
    for path in (Path(folder) / name for name in _SITES):
        if not path.is_file():
            continue
        try:
            tree = ET.parse(path)  # noqa: S314 - the machine's own file; nothing outside is loaded
        except ET.ParseError as exc:
            raise EngineUnfitError(f"{str(path)!r} does not parse: {exc}") from exc
        for one in tree.iter("property"):
            found[one.findtext("name", "").strip()] = one.findtext("value", "").strip()
    return found
