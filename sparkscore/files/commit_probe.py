"""Whether a store keeps two writers from making the same commit."""

from __future__ import annotations

import re
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING

from sparkscore.errors import EngineUnfitError, TargetUnwritableError
from sparkscore.extras import missing_extra
from sparkscore.files.azure_store import AzureStore
from sparkscore.files.filesystem import StorePath, store_error
from sparkscore.files.s3_store import S3Store

if TYPE_CHECKING:
    from obstore.store import AzureStore as Container
    from obstore.store import S3Config
    from obstore.store import S3Store as Bucket

PROBE_FILE = re.compile(r"_sparkscore-probe-[0-9a-f]{32}")
"""Names of the objects that are put to ask; what is left of them belongs to nobody."""


@lru_cache(maxsize=64)  # An error is not kept, and asked for again.
def check_commits(root: StorePath) -> None:
    """Refuse a store that would let a later commit overwrite an earlier one.

    An object is put twice where none may be: the second time has to fail. Amazon's and Azure's own
    stores are known to do so and are not asked, nor is HDFS, whose name node renames no file over
    another.

    Raises:
        EngineUnfitError: The store takes both, or the library that asks is not installed.
        TargetUnwritableError: The store refuses writes.
        StoreUnavailableError: The store does not answer.
    """
    store = root.store
    if not isinstance(store, S3Store | AzureStore) or store.endpoint is None:
        return
    try:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError
    except ModuleNotFoundError as exc:
        # Not the error itself: where Spark has a client of its own, the job needs no extra.
        raise EngineUnfitError(str(missing_extra(exc, f"writing to {store.endpoint}"))) from exc
    probe = root / f"_sparkscore-probe-{uuid.uuid4().hex}"
    key = probe.path.partition("/")[2]
    try:
        bucket = _bucket(store, root.bucket)
        obstore.put(bucket, key, b"", mode="create")
        try:
            obstore.put(bucket, key, b"", mode="create")
        except AlreadyExistsError:
            return
        finally:
            obstore.delete(bucket, key)
    except BaseError as exc:
        raise store_error(root, "target", TargetUnwritableError, exc) from exc
    raise EngineUnfitError(
        f"the store at {store.endpoint} ignores 'If-None-Match', so that of two commits one could "
        "overwrite the other"
    )


def _bucket(store: S3Store | AzureStore, name: str) -> Bucket | Container:
    """The bucket as deltalake's commits see it: both are of the same library beneath."""
    return _s3_bucket(store, name) if isinstance(store, S3Store) else _container(store, name)


def _s3_bucket(store: S3Store, name: str) -> Bucket:
    from obstore.store import S3Store as Bucket

    config: S3Config = {"region": store.region, "conditional_put": "etag"}
    if store.endpoint is not None:
        config["endpoint"] = store.endpoint
    if store.access_key is not None and store.secret_key is not None:
        config["access_key_id"] = store.access_key
        config["secret_access_key"] = store.secret_key
    if store.session_token is not None:
        config["session_token"] = store.session_token
    if store.is_anonymous:
        config["skip_signature"] = True
    is_plain = (store.endpoint or "").startswith("http:")
    return Bucket(name, config=config, client_options={"allow_http": is_plain})


def _container(store: AzureStore, name: str) -> Container:
    from obstore.store import AzureStore as Container

    return Container(
        name,
        config={
            "account_name": store.account,
            "account_key": store.account_key,
            "endpoint": store.account_url,
        },
        client_options={"allow_http": (store.endpoint or "").startswith("http:")},
    )
