"""Buckets of S3, or of a store that speaks its protocol, through Arrow's own client."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from sparkscore.files.arrow_store import ArrowStore
from sparkscore.files.filesystem import S3_SCHEMES, StoreWords

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

_N_TRIES = 3
_DELAYED_OPEN = 21
"""The release of pyarrow from which on a file need not be there before its first bytes are."""
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
class S3Store(ArrowStore):
    """How to reach the buckets of one S3 store.

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

    schemes: ClassVar[tuple[str, ...]] = S3_SCHEMES
    encodes_names: ClassVar[bool] = False

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

    @property
    def words(self) -> StoreWords:
        """How messages speak of it."""
        place = self.endpoint or f"Amazon's {self.region}"
        return StoreWords(
            place=f"the store at {place}",
            top="bucket",
            refuses=f"refuses the credentials of {self.credentials}",
            refusal_signs=_REFUSED,
            mend_refusal="check them, and that they may read and write there",
            mend_silence="check AWS_ENDPOINT_URL or spark.hadoop.fs.s3a.endpoint",
        )

    def path_of(self, uri: str) -> str:
        """Bucket and key."""
        return uri.partition("://")[2]

    def uri_of(self, path: str) -> str:
        """The URI that all libraries know."""
        return f"s3://{path}"

    def without_secrets(self, text: str) -> str:
        """A library's message, in which no key stands."""
        for secret in (self.access_key, self.secret_key, self.session_token):
            text = text.replace(secret, "***") if secret else text
        return text


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
