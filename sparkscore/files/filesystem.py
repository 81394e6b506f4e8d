"""Where a table's files lie: a folder of this machine, or a prefix of an object store.

A `StorePath` has those verbs of `pathlib.Path` that a table needs, so that the same code lists,
reads and writes both; what lies on this machine stays a `Path`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TextIO
from urllib.parse import unquote, urlsplit

from sparkscore.errors import (
    EngineUnfitError,
    InvalidNameError,
    SparkscoreError,
    StoreUnavailableError,
    shown,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import S3FileSystem

S3_SCHEMES = ("s3", "s3a", "s3n")
"""Hadoop's names for one place."""

_N_TRIES = 3
_DELAYED_OPEN = 21
"""The release of pyarrow from which on a file need not be there before its first bytes are."""
_MAX_SHOWN_CHARS = 300
_TERMINAL_MARKS = re.compile("\x1b\\[[0-9;]*m|↳")
"""Colours and arrows in what deltalake says."""
_REFUSED = (
    "ACCESS_DENIED",
    "EXPIRED_TOKEN",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
    "403 Forbidden",
    "HTTP response code 403",
    "AccessDenied",
)
"""What the libraries call an answer of a store that does not know a key, or does not trust it."""


@dataclass(frozen=True)
class S3Store:
    """How to reach the buckets of one S3 store; travels to workers, who connect by themselves.

    Attributes:
        endpoint: Scheme, host and port; None: Amazon's own of the region.
        access_key: None: what the libraries find on a node, such as its role.
        is_anonymous: Whether requests go unsigned.
        credentials: Where the keys come from, for messages.
    """

    region: str
    endpoint: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    is_anonymous: bool = False
    credentials: str = "what this machine offers"

    @property
    def filesystem(self) -> S3FileSystem:
        """The store as Arrow reads and writes it; connected once a process."""
        return _s3_filesystem(self)

    @property
    def delta_options(self) -> dict[str, str]:
        """The same for `deltalake`; a commit is put only where no other one is."""
        given = {
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": str((self.endpoint or "").startswith("http:")).lower(),
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": self.session_token,
            "AWS_SKIP_SIGNATURE": str(self.is_anonymous).lower(),
            "AWS_CONDITIONAL_PUT": "etag",
            "AWS_S3_ALLOW_UNSAFE_RENAME": "false",
        }
        return {name: value for name, value in given.items() if value is not None}

    def open_input(self, uri: str) -> pa.NativeFile:
        """A file of the store, for reading at any place of it.

        Raises:
            OSError: It is not there, or the store does not give it.
        """
        return self.filesystem.open_input_file(_key(uri))

    def without_secrets(self, text: str) -> str:
        """A library's message, in which no key stands."""
        for secret in (self.access_key, self.secret_key, self.session_token):
            text = text.replace(secret, "***") if secret else text
        return text


@dataclass(frozen=True)
class StoreFacts:
    """What a store says of a file, by the names of `os.stat_result`."""

    st_size: int
    st_mtime: float


@dataclass(frozen=True)
class StorePath:
    """A file or a prefix of an object store; verbs do what those of `Path` do.

    Attributes:
        path: Bucket and key, as they are: nothing in it is encoded.
    """

    store: S3Store
    path: str

    def __str__(self) -> str:
        return f"s3://{self.path}"

    def __truediv__(self, below: str) -> StorePath:
        return StorePath(self.store, f"{self.path}/{below}")

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without what follows its last dot."""
        return self.name.rpartition(".")[0] or self.name

    def with_name(self, name: str) -> StorePath:
        """Another file of the same prefix."""
        return StorePath(self.store, f"{self.path.rpartition('/')[0]}/{name}")

    def is_dir(self) -> bool:
        """Whether the store has anything below this prefix."""
        return self._type_name() == "Directory"

    def is_file(self) -> bool:
        """Whether the store has this very object."""
        return self._type_name() == "File"

    def stat(self) -> StoreFacts:
        """Size in bytes, and when it was written in seconds since 1970."""
        facts = self.store.filesystem.get_file_info(self.path)
        if facts.size is None:
            raise FileNotFoundError(f"{self} is no file of the store")
        return StoreFacts(facts.size, facts.mtime_ns / 1e9)

    def open(self, *, encoding: str = "utf-8") -> TextIO:
        """The text of an object."""
        return io.TextIOWrapper(
            io.BufferedReader(self.store.filesystem.open_input_stream(self.path)), encoding
        )

    def read_text(self, *, encoding: str = "utf-8") -> str:
        """The whole text of an object."""
        with self.store.filesystem.open_input_stream(self.path) as file:
            return bytes(file.read()).decode(encoding)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove an object; Arrow leaves an empty one in the place of the folder it was in."""
        try:
            self.store.filesystem.delete_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Objects right below whose name fits."""
        return self._found(pattern, recursive=False)

    def rglob(self, pattern: str) -> Iterator[StorePath]:
        """Objects anywhere below whose name fits."""
        return self._found(pattern, recursive=True)

    def _type_name(self) -> str:
        return str(self.store.filesystem.get_file_info(self.path).type.name)

    def _found(self, pattern: str, *, recursive: bool) -> Iterator[StorePath]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, allow_not_found=True, recursive=recursive)
        for facts in self.store.filesystem.get_file_info(selector):
            if facts.is_file and fnmatchcase(facts.base_name, pattern):
                yield StorePath(self.store, facts.path)


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


def store_path(store: S3Store, uri: str) -> StorePath:
    """The prefix that a URI of an S3 store names, whatever Hadoop's name for S3 in it."""
    return StorePath(store, _key(uri).rstrip("/"))


def check_place(uri: str, noun: str) -> None:
    """Refuse a place that only Spark can reach, or that cannot be named to all libraries.

    Args:
        uri: The table's located path or URI.
        noun: `source` or `target`, for the message.

    Raises:
        EngineUnfitError: It is of a scheme that is not known here, or of an odd name.
        InvalidNameError: The URI holds credentials.
    """
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return
    if parts.scheme not in S3_SCHEMES:
        raise EngineUnfitError(f"the {noun} lies in {parts.scheme}")
    if "@" in parts.netloc:
        raise InvalidNameError(
            f"the {noun}'s URI holds credentials before {parts.netloc.rpartition('@')[2]!r}, and "
            "would be shown in records; give them as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or as spark.hadoop.fs.s3a.access.key and .secret.key"
        )
    if not parts.netloc or not parts.path.strip("/"):
        raise InvalidNameError(f"the {noun} {shown(uri)} is not of the form s3a://BUCKET/FOLDER")
    if parts.query or parts.fragment or "//" in parts.path or unquote(parts.path) != parts.path:
        raise EngineUnfitError(
            f"the {noun}'s name has '?', '#', '//', or a '%' with digits: {shown(uri)}"
        )


def storage_options(root: TablePath) -> dict[str, str] | None:
    """What `deltalake` needs to reach a table's folder."""
    return None if isinstance(root, Path) else root.store.delta_options


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
    store, place = path.store, _place(path.store)
    plain = _TERMINAL_MARKS.sub("", store.without_secrets(str(exc)))
    text = " ".join(plain.split())[:_MAX_SHOWN_CHARS] or type(exc).__name__
    if any(sign in plain for sign in _REFUSED):
        return error(
            f"{noun} {shown(str(path))}: the store at {place} refuses the credentials of "
            f"{store.credentials}: {text}; check them, and that they may read and write there"
        )
    return StoreUnavailableError(
        f"{noun} {shown(str(path))}: the store at {place} gave no good answer: {text}; check "
        "AWS_ENDPOINT_URL or spark.hadoop.fs.s3a.endpoint, or run the same command again"
    )


def _check_bucket(root: StorePath, noun: str, error: type[SparkscoreError]) -> None:
    if root.is_dir():
        return
    try:
        is_there = StorePath(root.store, root.bucket).is_dir()
    except OSError:
        return  # It is there, and of it only some prefixes may be listed.
    if not is_there:
        raise error(
            f"{noun} {shown(str(root))}: the store at {_place(root.store)} has no bucket "
            f"{root.bucket!r}; create it, or check the name and the endpoint"
        )


def _place(store: S3Store) -> str:
    return store.endpoint or f"Amazon's {store.region}"


def _key(uri: str) -> str:
    """Bucket and key of an S3 URI."""
    return uri.partition("://")[2]


@lru_cache(maxsize=8)
def _s3_filesystem(store: S3Store) -> S3FileSystem:
    from pyarrow import __version__ as arrow
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    # One request for a small file, where there would be three; closing it tells of a refusal.
    is_known = int(arrow.partition(".")[0]) >= _DELAYED_OPEN
    delayed = {"allow_delayed_open": True} if is_known else {}
    scheme, _, host = (store.endpoint or "https://").partition("://")
    return S3FileSystem(
        access_key=store.access_key,
        secret_key=store.secret_key,
        session_token=store.session_token,
        anonymous=store.is_anonymous,
        region=store.region,
        scheme=scheme,
        endpoint_override=host or None,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_N_TRIES),
        **delayed,
    )
