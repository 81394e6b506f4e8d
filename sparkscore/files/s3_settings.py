"""One configuration for both ways to S3: Spark's fs.s3a settings, and the AWS variables."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from sparkscore.errors import EngineUnfitError
from sparkscore.files.filesystem import S3_SCHEMES
from sparkscore.files.s3_store import S3Store

_PREFIX = "fs.s3a."
_READ = (
    "access.key",
    "secret.key",
    "session.token",
    "endpoint",
    "endpoint.region",
    "connection.ssl.enabled",
    "aws.credentials.provider",
)
_DEMANDS = (
    "encryption.algorithm",
    "server-side-encryption-algorithm",
    "security.credential.provider.path",
    "assumed.role.arn",
    "proxy.host",
    "requester.pays.enabled",
    "accesspoint.arn",
)
"""What Hadoop's client would do and is not done here."""
_ANONYMOUS = "AnonymousAWSCredentialsProvider"
_PROVIDERS = (
    "SimpleAWSCredentialsProvider",
    "TemporaryAWSCredentialsProvider",
    "EnvironmentVariableCredentialsProvider",
    "IAMInstanceCredentialsProvider",
    "DefaultCredentialsProvider",
    "InstanceProfileCredentialsProvider",
    "ContainerCredentialsProvider",
)
"""Those whose order is that of the libraries here: keys that are named, variables, the node."""
_AMAZON = "amazonaws.com"
_DEFAULT_REGION = "us-east-1"
"""What stores other than Amazon's call theirs."""


def hadoop_names(bucket: str) -> tuple[str, ...]:
    """The settings of Hadoop that may say something of a bucket."""
    names = (*_READ, *_DEMANDS)
    return tuple(f"{prefix}{name}" for prefix in _prefixes(bucket) for name in names)


def s3_store(uri: str, hadoop: Mapping[str, str], environ: Mapping[str, str]) -> S3Store | None:
    """The store of a table's URI; None where it lies elsewhere.

    Args:
        uri: The table's located path or URI, which `check_place` has passed.
        hadoop: Spark's settings by the names of `hadoop_names`; they win over the variables, and
            those of a bucket win over the others.
        environ: AWS variables, by the names that Arrow and deltalake know.

    Raises:
        EngineUnfitError: Hadoop's client would do what is not done here, or the region is unknown.
    """
    parts = urlsplit(uri)
    if parts.scheme not in S3_SCHEMES:
        return None
    found = {
        name: hadoop[f"{prefix}{name}"]
        for prefix in reversed(_prefixes(parts.netloc))
        for name in (*_READ, *_DEMANDS)
        if hadoop.get(f"{prefix}{name}")
    }
    _refuse_demands(found)
    endpoint = _endpoint(found, environ)
    is_anonymous = _is_anonymous(found, environ)
    keys = (None, None, None, "nobody") if is_anonymous else _keys(found, environ)
    return S3Store(
        region=_region(found, environ, endpoint),
        endpoint=endpoint,
        access_key=keys[0],
        secret_key=keys[1],
        session_token=keys[2],
        is_anonymous=is_anonymous,
        credentials=keys[3],
    )


def _prefixes(bucket: str) -> tuple[str, str]:
    """Of the settings of a bucket, and of all."""
    return f"{_PREFIX}bucket.{bucket}.", _PREFIX


def _refuse_demands(found: Mapping[str, str]) -> None:
    for name in _DEMANDS:
        if found.get(name, "false") != "false":
            raise EngineUnfitError(f"{_PREFIX}{name} is set, which only Spark's client heeds")
    unknown = [name for name in _providers(found) if name not in (*_PROVIDERS, _ANONYMOUS)]
    if unknown:
        raise EngineUnfitError(f"{_PREFIX}aws.credentials.provider names {unknown[0]}")


def _providers(found: Mapping[str, str]) -> list[str]:
    listed = found.get("aws.credentials.provider", "").split(",")
    return [name.strip().rpartition(".")[2] for name in listed if name.strip()]


def _is_anonymous(found: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    skips = environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("true", "1")
    return skips or _providers(found) == [_ANONYMOUS]


def _endpoint(found: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """Scheme, host and port; None for Amazon's own, which the region tells."""
    named = [found.get("endpoint"), *map(environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))]
    # Spark itself names Amazon's common host where nobody has named one.
    given = [name for name in named if name and not name.endswith(f"s3.{_AMAZON}")]
    if not given:
        return None
    parts = urlsplit(_with_scheme(given[0], found))
    if parts.path.strip("/"):
        raise EngineUnfitError(f"the endpoint of the store has a path: {parts.path!r}")
    return f"{parts.scheme}://{parts.netloc}"


def _with_scheme(endpoint: str, found: Mapping[str, str]) -> str:
    if "://" in endpoint:
        return endpoint
    is_plain = found.get("connection.ssl.enabled") == "false"
    return f"{'http' if is_plain else 'https'}://{endpoint}"


def _region(found: Mapping[str, str], environ: Mapping[str, str], endpoint: str | None) -> str:
    given = (
        found.get("endpoint.region")
        or environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
    )
    if given:
        return given
    if endpoint is None or _AMAZON in endpoint:
        raise EngineUnfitError(
            "neither AWS_REGION nor fs.s3a.endpoint.region says in which region the bucket is"
        )
    return _DEFAULT_REGION


def _keys(
    found: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[str | None, str | None, str | None, str]:
    """Access key, secret key and session token, and where they come from."""
    access, secret = found.get("access.key"), found.get("secret.key")
    if access and secret:
        return access, secret, found.get("session.token"), "spark.hadoop.fs.s3a.access.key"
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return access, secret, environ.get("AWS_SESSION_TOKEN") or None, "AWS_ACCESS_KEY_ID"
    return None, None, None, "what this machine offers (no AWS_ACCESS_KEY_ID is set)"
