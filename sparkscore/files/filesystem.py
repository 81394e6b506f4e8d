"""Where a table's files lie: a folder of this machine, or one of a store.

A `StorePath` has those verbs of `pathlib.Path` that a table needs, so that the same code lists,
reads and writes both; what lies on this machine stays a `Path`. A `Store` is what can be asked of
S3, HDFS or another place.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar, Protocol, TextIO
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from sparkscore.errors import (
    EngineUnfitError,
    InvalidNameError,
    SparkscoreError,
    StoreUnavailableError,
    shown,
)

S3_SCHEMES = ("s3", "s3a", "s3n")
"""Hadoop's names for one place."""
AZURE_SCHEMES = ("abfss", "abfs")
HDFS_SCHEME = "hdfs"

_MAX_SHOWN_CHARS = 300
_MARKS = re.compile("\x1b\\[[0-9;]*m|↳|\n\\s*at [^\n]*")
"""Colours, arrows and frames of Java in what libraries say."""


@dataclass(frozen=True)
class StoreFacts:
    """What a store says of a file or folder, by the names of `os.stat_result`."""

    is_dir: bool
    st_size: int
    st_mtime: float


@dataclass(frozen=True)
class StoreWords:
    """How messages speak of a store.

    Attributes:
        place: What answers, or does not.
        top: What it calls the folders that are in no other one.
        refuses: What it does where it answers with one of the signs.
        refusal_signs: What the libraries call an answer that is for want of rights.
        mend_refusal: What to do then.
        mend_silence: What to do where there is no good answer.
    """

    place: str
    top: str
    refuses: str
    refusal_signs: tuple[str, ...]
    mend_refusal: str
    mend_silence: str


class Store(Protocol):
    """How to reach files that are not this machine's; travels to workers, who connect themselves.

    A path is the bucket or cluster and what is below it, as it is: nothing in it is encoded. What
    is not there is a FileNotFoundError, and any other answer an OSError.
    """

    schemes: ClassVar[tuple[str, ...]]
    """Those of the URIs that may mean it."""
    encodes_names: ClassVar[bool]
    """Whether `deltalake` looks for a folder there under its encoded name."""

    def path_of(self, uri: str) -> str:
        """The path that a URI of the store names, whatever the scheme's name."""
        ...

    def uri_of(self, path: str) -> str:
        """The URI by which all libraries know a path."""
        ...

    def facts(self, path: str) -> StoreFacts | None:
        """What is there; None: nothing."""
        ...

    def files_below(self, path: str, *, recursive: bool) -> Iterator[str]:
        """Paths of the files in a folder; none where there is no folder."""
        ...

    def open_input(self, path: str) -> pa.NativeFile:
        """A file, for reading at any place of it."""
        ...

    def open_stream(self, path: str) -> pa.NativeFile:
        """A file, for reading it from its beginning."""
        ...

    def open_output(self, path: str) -> pa.NativeFile:
        """A new file, with the folders above it; whole only when it was closed."""
        ...

    def delete_file(self, path: str) -> None:
        """Remove a file."""
        ...

    @property
    def delta_options(self) -> dict[str, str]:
        """How `deltalake` reaches it."""
        ...

    @property
    def words(self) -> StoreWords:
        """How messages speak of it."""
        ...

    def without_secrets(self, text: str) -> str:
        """A library's message, in which no key stands."""
        ...


@dataclass(frozen=True)
class StorePath:
    """A file or a folder of a store; verbs do what those of `Path` do.

    Attributes:
        path: Bucket and key, or cluster and file: nothing in it is encoded.
    """

    store: Store
    path: str

    def __str__(self) -> str:
        return self.store.uri_of(self.path)

    def __truediv__(self, below: str) -> StorePath:
        return StorePath(self.store, f"{self.path}/{below}")

    @property
    def bucket(self) -> str:
        """The bucket's name, the container's or the cluster's."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without what follows its last dot."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> StorePath:
        """The folder that it is in."""
        return StorePath(self.store, self.path.rpartition("/")[0])

    def with_name(self, name: str) -> StorePath:
        """Another file of the same prefix."""
        return self.parent / name

    def is_dir(self) -> bool:
        """Whether it is a folder, or the store has anything below this prefix."""
        facts = self.store.facts(self.path)
        return facts is not None and facts.is_dir

    def is_file(self) -> bool:
        """Whether the store has this very file."""
        facts = self.store.facts(self.path)
        return facts is not None and not facts.is_dir

    def stat(self) -> StoreFacts:
        """Size in bytes, and when it was written in seconds since 1970."""
        facts = self.store.facts(self.path)
        if facts is None or facts.is_dir:
            raise FileNotFoundError(f"{self} is no file of the store")
        return facts

    def open(self, *, encoding: str = "utf-8") -> TextIO:
        """The text of a file."""
        return io.TextIOWrapper(io.BufferedReader(self.store.open_stream(self.path)), encoding)

    def read_text(self, *, encoding: str = "utf-8") -> str:
        """The whole text of a file."""
        with self.store.open_stream(self.path) as file:
            return bytes(file.read()).decode(encoding)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove a file; the folder that it was in may stay, empty."""
        try:
            self.store.delete_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Files right below whose name fits."""
        return self._found(pattern, recursive=False)

    def rglob(self, pattern: str) -> Iterator[StorePath]:
        """Files anywhere below whose name fits."""
        return self._found(pattern, recursive=True)

    def _found(self, pattern: str, *, recursive: bool) -> Iterator[StorePath]:
        for path in self.store.files_below(self.path, recursive=recursive):
            if fnmatchcase(path.rpartition("/")[2], pattern):
                yield StorePath(self.store, path)


TablePath = Path | StorePath
"""A folder or a file of a table."""


def local_folder(uri: str) -> Path:
    """The folder that a path or a file: URI names.

    Raises:
        EngineUnfitError: It is a URI of another kind.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        raise EngineUnfitError(f"a table lies in {parts.scheme}")
    return Path(parts.path if parts.scheme else uri)


def store_path(store: Store, uri: str) -> StorePath:
    """The folder or file that a URI of a store names."""
    return StorePath(store, store.path_of(uri).rstrip("/"))


def check_place(uri: str, noun: str) -> None:
    """Refuse a place that only Spark can reach, or that cannot be named to all libraries.

    Args:
        uri: The table's located path or URI.
        noun: `source` or `target`, for the message.

    Raises:
        EngineUnfitError: It is of a scheme that is not known here, or of an odd name.
        InvalidNameError: The URI holds credentials, or names no folder.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return
    checks = dict.fromkeys(S3_SCHEMES, _check_s3_name)
    checks |= dict.fromkeys(AZURE_SCHEMES, _check_azure_name) | {HDFS_SCHEME: _check_hdfs_name}
    if parts.scheme not in checks:
        raise EngineUnfitError(f"the {noun} lies in {parts.scheme}")
    checks[parts.scheme](uri, noun)
    if parts.query or parts.fragment or "//" in parts.path or unquote(parts.path) != parts.path:
        raise EngineUnfitError(
            f"the {noun}'s name has '?', '#', '//', or a '%' with digits: {shown(uri)}"
        )


def _check_s3_name(uri: str, noun: str) -> None:
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise InvalidNameError(
            f"the {noun}'s URI holds credentials before {parts.netloc.rpartition('@')[2]!r}, and "
            "would be shown in records; give them as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or as spark.hadoop.fs.s3a.access.key and .secret.key"
        )
    if not parts.netloc or not parts.path.strip("/"):
        raise InvalidNameError(f"the {noun} {shown(uri)} is not of the form s3a://BUCKET/FOLDER")


def _check_azure_name(uri: str, noun: str) -> None:
    parts = urlsplit(uri)
    container, at, account = parts.netloc.rpartition("@")
    if ":" in container:
        raise InvalidNameError(
            f"the {noun}'s URI holds credentials before {account!r}, and would be shown in "
            "records; give the key as AZURE_STORAGE_ACCOUNT_KEY"
        )
    if not container or not at or not account or not parts.path.strip("/"):
        raise InvalidNameError(
            f"the {noun} {shown(uri)} is not of the form "
            "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER"
        )


def _check_hdfs_name(uri: str, noun: str) -> None:
    parts = urlsplit(uri)
    if not uri.startswith(f"{HDFS_SCHEME}://") or not parts.path.strip("/"):
        raise InvalidNameError(f"the {noun} {shown(uri)} is not of the form hdfs://CLUSTER/FOLDER")
    if "@" in parts.netloc:
        raise EngineUnfitError(f"the {noun}'s URI names a user")


def storage_options(root: TablePath) -> dict[str, str] | None:
    """What `deltalake` needs to reach a table's folder."""
    return None if isinstance(root, Path) else root.store.delta_options


def open_input(path: TablePath) -> pa.NativeFile:
    """A file of this machine or of a store, to be read."""
    if isinstance(path, StorePath):
        return path.store.open_input(path.path)
    import pyarrow as pa

    return pa.OSFile(str(path))


def below(root: TablePath, path: TablePath | str) -> str:
    """The path of a file relative to the table's folder.

    Raises:
        EngineUnfitError: It lies elsewhere, as files of a cloned table do.
    """
    start = f"{root}/"
    if not str(path).startswith(start):
        raise EngineUnfitError(f"a file of the table lies outside of its folder: {shown(path)}")
    return str(path).removeprefix(start)


@contextmanager
def store_errors(root: TablePath, noun: str, error: type[SparkscoreError]) -> Iterator[None]:
    """Say what a store refuses, and what to do; a folder of this machine speaks for itself.

    Args:
        root: The table's folder.
        noun: `source` or `target`, for the message.
        error: What is raised where the store itself answers.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    try:
        if isinstance(root, StorePath):
            _check_bucket(root, noun, error)
        yield
    except SparkscoreError:
        raise  # Some of ours are OSErrors as well.
    except OSError as exc:
        if isinstance(root, Path):
            raise
        raise store_error(root, noun, error, exc) from exc


def store_error(
    path: StorePath, noun: str, error: type[SparkscoreError], exc: Exception
) -> SparkscoreError:
    """What a library raised over a store's answer, as an error that says what to do.

    Args:
        path: What was asked for.
        noun: `source`, `target` or `data file`, for the message.
        error: What it is where the store itself has answered.
        exc: The library's; no key that may stand in its text is shown.
    """
    words = path.store.words
    plain = _MARKS.sub("", path.store.without_secrets(str(exc)))
    text = " ".join(plain.split())[:_MAX_SHOWN_CHARS] or type(exc).__name__
    if any(sign in plain for sign in words.refusal_signs):
        return error(
            f"{noun} {shown(str(path))}: {words.place} {words.refuses}: {text}; "
            f"{words.mend_refusal}"
        )
    return StoreUnavailableError(
        f"{noun} {shown(str(path))}: {words.place} gave no good answer: {text}; "
        f"{words.mend_silence}, or run the same command again"
    )


def _check_bucket(root: StorePath, noun: str, error: type[SparkscoreError]) -> None:
    if root.is_dir():
        return
    try:
        is_there = StorePath(root.store, root.bucket).is_dir()
    except OSError:
        return  # It is there, and of it only some prefixes may be listed.
    if not is_there:
        words = root.store.words
        raise error(
            f"{noun} {shown(str(root))}: {words.place} has no {words.top} "
            f"{root.bucket!r}; create it, or check the name and the endpoint"
        )
