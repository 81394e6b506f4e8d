"""Containers of Azure's storage, through Arrow's own client."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from sparkscore.files.arrow_store import ArrowStore
from sparkscore.files.filesystem import AZURE_SCHEMES, StoreWords

if TYPE_CHECKING:
    from pyarrow.fs import AzureFileSystem

AZURE_HOST = "dfs.core.windows.net"
"""What stands behind an account's name in URIs."""

_REFUSED = (
    "AuthenticationFailed",
    "AuthorizationFailure",
    "AuthorizationPermissionMismatch",
    "InsufficientAccountPermissions",
    "403 Forbidden",
)
"""Codes of an answer to a key that is wrong, or that may not do this."""


@dataclass(frozen=True)
class AzureStore(ArrowStore):
    """How to reach the containers of one storage account.

    Attributes:
        account_key: One of the account's two keys, in base64.
        endpoint: Scheme, host and port of a server in the place of Azure's; it has the account in
            the path.
        credentials: Where the key comes from, for messages.
    """

    account: str
    account_key: str = field(repr=False)
    endpoint: str | None = None
    credentials: str = "AZURE_STORAGE_ACCOUNT_KEY"

    schemes: ClassVar[tuple[str, ...]] = AZURE_SCHEMES
    encodes_names: ClassVar[bool] = True

    @property
    def filesystem(self) -> AzureFileSystem:
        """The account as Arrow reads and writes it; connected once a process."""
        return _azure_filesystem(self)

    @property
    def delta_options(self) -> dict[str, str]:
        """The same for `deltalake`; a commit is put only where no other one is."""
        options = {
            "azure_storage_account_name": self.account,
            "azure_storage_account_key": self.account_key,
        }
        if self.endpoint is not None:
            options["azure_storage_endpoint"] = self.account_url
            options["allow_http"] = str(self.endpoint.startswith("http:")).lower()
        return options

    @property
    def account_url(self) -> str:
        """The URL of the account at a server that has it in the path."""
        return f"{self.endpoint}/{self.account}"

    @property
    def words(self) -> StoreWords:
        """How messages speak of it."""
        return StoreWords(
            place=f"the store at {self.endpoint or f'{self.account}.{AZURE_HOST}'}",
            top="container",
            refuses=f"refuses the credentials of {self.credentials}",
            refusal_signs=_REFUSED,
            mend_refusal="check the key, and that the account allows keys",
            mend_silence="check the account's name and the network's way there",
        )

    def path_of(self, uri: str) -> str:
        """Container and blob."""
        place, slash, below = uri.partition("://")[2].partition("/")
        return f"{place.partition('@')[0]}{slash}{below}"

    def uri_of(self, path: str) -> str:
        """The URI that Spark and `deltalake` know."""
        container, slash, below = path.partition("/")
        return f"abfss://{container}@{self.account}.{AZURE_HOST}{slash}{below}"

    def without_secrets(self, text: str) -> str:
        """A library's message, in which no key stands."""
        return text.replace(self.account_key, "***")


@lru_cache(maxsize=8)
def _azure_filesystem(store: AzureStore) -> AzureFileSystem:
    from pyarrow.fs import AzureFileSystem

    if store.endpoint is None:
        return AzureFileSystem(store.account, account_key=store.account_key)
    parts = urlsplit(store.endpoint)
    return AzureFileSystem(
        store.account,
        account_key=store.account_key,
        blob_storage_authority=parts.netloc,
        blob_storage_scheme=parts.scheme,
        dfs_storage_authority=parts.netloc,
        dfs_storage_scheme=parts.scheme,
    )
