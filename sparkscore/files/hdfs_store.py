"""Folders of HDFS, through a client of its own that needs no Java."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from sparkscore.errors import EngineUnfitError
from sparkscore.extras import missing_extra
from sparkscore.files.filesystem import HDFS_SCHEME, StoreFacts, StoreWords

if TYPE_CHECKING:
    from hdfs_native import Client, FileReader, FileWriter

_NO_RIGHT = "Permission denied"
_REMOTE = re.compile(r'RPCError\("(?:[\w$]+\.)*([\w$]+)", "(.*)"\)', re.DOTALL)
"""What the client makes of an exception of the name node: its class, and its text in Rust."""
_FRAMES = "\\n\\tat "


@dataclass(frozen=True)
class HdfsStore:
    """How to reach one cluster of HDFS.

    Attributes:
        cluster: Host and port of its name node, or the name under which several stand.
        settings: Hadoop's, by name: those that the clients know.
    """

    cluster: str
    settings: tuple[tuple[str, str], ...] = ()

    schemes: ClassVar[tuple[str, ...]] = (HDFS_SCHEME,)
    encodes_names: ClassVar[bool] = True

    @property
    def delta_options(self) -> dict[str, str]:
        """The settings for `deltalake`, which commits by a rename that overwrites nothing."""
        return dict(self.settings)

    @property
    def words(self) -> StoreWords:
        """How messages speak of it."""
        return StoreWords(
            place=f"HDFS at {self.cluster}",
            top="root",
            refuses="does not let this user do that",
            refusal_signs=(_NO_RIGHT,),
            mend_refusal="change the owner or mode of the folder, or set HADOOP_USER_NAME",
            mend_silence="check the name node's host and port, and Spark's dfs.ha settings",
        )

    def path_of(self, uri: str) -> str:
        """The cluster and the path; a URI need not name the cluster."""
        rest = uri.removeprefix(f"{HDFS_SCHEME}:")
        return self.cluster + (rest[rest.index("/", 2) :] if rest.startswith("//") else rest)

    def uri_of(self, path: str) -> str:
        """The URI, which names the cluster."""
        return f"{HDFS_SCHEME}://{path}"

    def facts(self, path: str) -> StoreFacts | None:
        """What is there; None: nothing."""
        try:
            with _answers():
                found = _client(self).get_file_info(_below(path))
        except FileNotFoundError:
            return None
        return StoreFacts(found.isdir, found.length, found.modification_time / 1e3)

    def files_below(self, path: str, *, recursive: bool) -> Iterator[str]:
        """Paths of the files in a folder; none where there is no folder.

        Raises:
            OSError: The list would not be whole, since a folder went meanwhile.
        """
        try:
            with _answers():
                found = list(_client(self).list_status(_below(path), recursive))
        except FileNotFoundError:
            if self.facts(path) is not None:
                raise
            return
        for one in found:
            if not one.isdir and one.path != _below(path):
                yield self.cluster + one.path

    def open_input(self, path: str) -> pa.NativeFile:
        """A file, for reading at any place of it; not whole if it is being written."""
        with _answers():
            return pa.PythonFile(_Input(_client(self).read(_below(path))), mode="r")

    def open_stream(self, path: str) -> pa.NativeFile:
        """The same, since HDFS knows no other way."""
        return self.open_input(path)

    def open_output(self, path: str) -> pa.NativeFile:
        """A new file, with the folders above it; it can be seen before it is whole."""
        with _answers():
            return pa.PythonFile(_Output(_client(self).create(_below(path))), mode="w")

    def delete_file(self, path: str) -> None:
        """Remove a file; the folder that it was in stays."""
        with _answers():
            if not _client(self).delete(_below(path)):
                raise FileNotFoundError(path)

    def without_secrets(self, text: str) -> str:
        """The message as it is: there are no keys."""
        return text


def check_client() -> None:
    """Refuse HDFS where its client is not installed; Spark has one of its own.

    Raises:
        EngineUnfitError: It is not; the extra is named.
    """
    try:
        import hdfs_native  # noqa: F401 - asked for
    except ModuleNotFoundError as exc:
        raise EngineUnfitError(str(missing_extra(exc, "HDFS without Spark"))) from exc


class _Input:
    """A file as Arrow reads it: with a place of its own, and OSErrors."""

    def __init__(self, file: FileReader) -> None:
        self._file = file
        self._n_bytes = len(file)
        self._place = 0
        self.closed = False

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._n_bytes}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._n_bytes - self._place)
        size = left if size < 0 else min(size, left)
        if size == 0:
            return b""
        with _answers():
            found = self._file.read_range(self._place, size)
        self._place += len(found)
        return found

    def close(self) -> None:
        self.closed = True


class _Output:
    """A file as Arrow writes it, with OSErrors."""

    def __init__(self, file: FileWriter) -> None:
        self._file = file
        self.closed = False

    def write(self, content: bytes) -> int:
        with _answers():
            return self._file.write(content)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            with _answers():
                self._file.close()


@lru_cache(maxsize=8)
def _client(store: HdfsStore) -> Client:
    from hdfs_native import Client

    # Whoever started the process of a node, Spark's tasks act as the user of the application.
    user = os.environ.get("SPARK_USER")
    if user:
        os.environ["HADOOP_USER_NAME"] = user
    with _answers():
        return Client(f"{HDFS_SCHEME}://{store.cluster}", dict(store.settings))


def _below(path: str) -> str:
    """What the name node calls a path of the store."""
    return "/" + path.partition("/")[2]


@contextmanager
def _answers() -> Iterator[None]:
    """Raise what the client says of an answer as an OSError, without frames of Java."""
    try:
        yield
    except (OSError, RuntimeError) as exc:
        remote = _REMOTE.fullmatch(str(exc))
        kind, text = (remote[1], remote[2].replace('\\"', '"')) if remote else ("", str(exc))
        text = text.partition(_FRAMES)[0].partition("\n")[0]
        if isinstance(exc, FileNotFoundError):
            raise FileNotFoundError(text) from exc
        if kind == "AccessControlException":
            raise PermissionError(text) from exc
        raise OSError(f"{kind}: {text}" if kind else text) from exc
