"""Which storage account a URI means and who asks: Spark's fs.azure settings, Azure's variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from sparkscore.errors import EngineUnfitError
from sparkscore.files.azure_store import AZURE_HOST, AzureStore
from sparkscore.files.filesystem import AZURE_SCHEMES

_PREFIX = "fs.azure."
_KEY = "account.key"
_SHARED_KEY = "SharedKey"
_KIND = "account.auth.type"
_DEMANDS = (
    "account.keyprovider",
    "encryption.context.provider.type",
    "encryption.encoded.client-provided-key",
)
"""What Hadoop's client would do and is not done here."""


def azure_store(
    uri: str, setting: Callable[[str], str], environ: Mapping[str, str]
) -> AzureStore | None:
    """The store of a table's URI; None where it lies elsewhere.

    Args:
        uri: The table's located path or URI, which `check_place` has passed.
        setting: The value of a setting of Hadoop; empty: it has none. An account's own wins over
            that of all, and both over the variables.
        environ: Read for AZURE_STORAGE_ACCOUNT_NAME, _ACCOUNT_KEY and _ENDPOINT.

    Raises:
        EngineUnfitError: Hadoop's client would do what is not done here, or no key is named.
    """
    parts = urlsplit(uri)
    if parts.scheme not in AZURE_SCHEMES:
        return None
    account, _, host = parts.netloc.rpartition("@")[2].partition(".")
    if host != AZURE_HOST:
        raise EngineUnfitError(f"the storage account is at {host!r}, and not at {AZURE_HOST}")

    def found(name: str) -> str:
        return setting(f"{_PREFIX}{name}.{account}.{host}") or setting(f"{_PREFIX}{name}")

    for name in _DEMANDS:
        if found(name):
            raise EngineUnfitError(f"{_PREFIX}{name} is set, which only Spark's client heeds")
    if found(_KIND) not in ("", _SHARED_KEY):
        raise EngineUnfitError(f"{_PREFIX}{_KIND} is {found(_KIND)!r}, and not {_SHARED_KEY}")
    key, credentials = found(_KEY), f"spark.hadoop.{_PREFIX}{_KEY}"
    if not key and environ.get("AZURE_STORAGE_ACCOUNT_NAME", account) == account:
        key, credentials = environ.get("AZURE_STORAGE_ACCOUNT_KEY", ""), "AZURE_STORAGE_ACCOUNT_KEY"
    if not key:
        raise EngineUnfitError(
            f"neither AZURE_STORAGE_ACCOUNT_KEY nor {_PREFIX}{_KEY} names a key of {account!r}"
        )
    return AzureStore(account, key, environ.get("AZURE_STORAGE_ENDPOINT") or None, credentials)
