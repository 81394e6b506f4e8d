"""Objects of S3, Google Cloud Storage and Azure, by obstore.

obstore and not s3fs, gcsfs and adlfs: one wheel without dependencies for all three, which uploads
large files in parts and retries by itself. Each object carries the SHA-256 of its bytes, which is
compared when it is read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store, from_url

from sparkscore.errors import RecordNotFoundError, StoreUnavailableError, shown
from sparkscore.records import ArtifactInfo

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_DIGEST = "sparkscore-sha256"
_N_RETRIES = 4
_RETRY_TIMEOUT = timedelta(seconds=60)
_TIMEOUT = timedelta(seconds=60)
_BLOCK_BYTES = 1 << 20
_PART_BYTES = 8 << 20
_MAX_PARTS = 9_000  # S3 takes 10,000.
_PARTS_AT_ONCE = 4


class BucketObjects:
    """The objects of one bucket below a prefix."""

    def __init__(self, store: ObjectStore, prefix: str, where: str) -> None:
        self._store = store
        self._prefix = prefix.strip("/")
        self._where = where

    @classmethod
    def at(cls, uri: str, s3_endpoint: str | None) -> BucketObjects:
        """The objects below a URI; see ObjectArtifactStore.

        Raises:
            StoreUnavailableError: The library refuses what it finds in its variables.
        """
        parts = urlsplit(uri)
        # An endpoint without TLS is one that somebody has named: a server of one's own.
        client: ClientConfig = {"allow_http": True, "timeout": _TIMEOUT}
        retry: RetryConfig = {"max_retries": _N_RETRIES, "retry_timeout": _RETRY_TIMEOUT}
        bucket = f"{parts.scheme}://{parts.netloc}"
        with _guarded(uri):
            if parts.scheme in ("s3", "s3a", "s3n"):
                store: ObjectStore = S3Store(
                    parts.netloc,
                    client_options=client,
                    retry_config=retry,
                    config={} if s3_endpoint is None else {"endpoint": s3_endpoint},
                )
            else:
                store = from_url(bucket, client_options=client, retry_config=retry)
        return cls(store, parts.path, bucket)

    def write(self, local: Path, key: str) -> None:
        """See Objects."""
        n_bytes = local.stat().st_size
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._asking(key):
            obstore.put(
                self._store,
                self._key(key),
                local,
                attributes={_DIGEST: digest},
                chunk_size=max(_PART_BYTES, math.ceil(n_bytes / _MAX_PARTS)),
                max_concurrency=_PARTS_AT_ONCE,
            )

    def read(self, key: str, local: Path) -> None:
        """See Objects."""
        seal = hashlib.sha256()
        with self._asking(key):
            try:
                answer = obstore.get(self._store, self._key(key))
            except FileNotFoundError as exc:
                raise RecordNotFoundError(f"there is no object {key!r} in {self._where}") from exc
            with local.open("xb") as file:
                for block in answer.stream(min_chunk_size=_BLOCK_BYTES):
                    seal.update(block)
                    file.write(block)
        kept = answer.attributes.get(_DIGEST, seal.hexdigest())
        if kept != seal.hexdigest():
            raise StoreUnavailableError(
                f"object {key!r} of {self._where} came with the SHA-256 {seal.hexdigest()}, but "
                f"{kept} was stored: run again, and restore the object if it is so again"
            )

    def exists(self, key: str) -> bool:
        """See Objects."""
        with self._asking(key):
            try:
                obstore.head(self._store, self._key(key))
            except FileNotFoundError:
                return False
        return True

    def below(self, folder: str) -> Sequence[str]:
        """See Objects."""
        with self._asking(folder):
            pages = obstore.list(self._store, self._key(folder) or None)
            return [self._path(facts["path"]) for page in pages for facts in page]

    def level(self, folder: str) -> Sequence[ArtifactInfo]:
        """See Objects."""
        with self._asking(folder):
            found = obstore.list_with_delimiter(self._store, self._key(folder) or None)
            folders = [
                ArtifactInfo(self._path(prefix), is_folder=True, n_bytes=None)
                for prefix in found["common_prefixes"]
            ]
            files = [
                ArtifactInfo(self._path(facts["path"]), is_folder=False, n_bytes=facts["size"])
                for facts in found["objects"]
            ]
        return folders + files

    def remove(self, path: str) -> None:
        """See Objects."""
        with self._asking(path):
            keys = [self._key(key) for key in self.below(path)]
            own = [self._key(path)] if path and self.exists(path) else []
            if own or keys:
                obstore.delete(self._store, own + keys)

    def _key(self, path: str) -> str:
        return "/".join(part for part in (self._prefix, path) if part)

    def _path(self, key: str) -> str:
        return key.removeprefix(self._prefix).strip("/")

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        with _guarded(f"{self._where}/{self._key(path)}"):
            yield


@contextmanager
def _guarded(where: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as exc:
        # The library's messages go on with its own structures.
        said = str(exc).partition("\n")[0]
        raise StoreUnavailableError(
            f"the artifact store failed at {shown(where)}: {said}. Check the bucket, the keys in "
            "the environment and the network, and run again"
        ) from exc
