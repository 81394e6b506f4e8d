"""Where a store is and who asks it, out of Spark's settings and the AWS variables."""

from __future__ import annotations

import pytest

from sparkscore.errors import EngineUnfitError, InvalidNameError
from sparkscore.files.filesystem import check_place, store_path
from sparkscore.files.s3_settings import s3_store
from sparkscore.files.s3_store import S3Store

URI = "s3a://flights/2013"
KEYS = {"AWS_ACCESS_KEY_ID": "env-key", "AWS_SECRET_ACCESS_KEY": "env-secret"}
HERE = {**KEYS, "AWS_REGION": "eu-west-1"}


def found(hadoop: dict[str, str], environ: dict[str, str]) -> S3Store:
    store = s3_store(URI, hadoop, environ)
    assert store is not None
    return store


def test_variables_alone_lead_to_a_store() -> None:
    store = found({}, {**HERE, "AWS_SESSION_TOKEN": "token"})
    assert (store.region, store.endpoint) == ("eu-west-1", None)
    assert (store.access_key, store.secret_key, store.session_token) == (
        "env-key",
        "env-secret",
        "token",
    )
    assert store.credentials == "AWS_ACCESS_KEY_ID"


def test_settings_of_spark_win_and_those_of_the_bucket_win_over_others() -> None:
    hadoop = {
        "fs.s3a.access.key": "all-key",
        "fs.s3a.secret.key": "all-secret",
        "fs.s3a.endpoint": "http://all:9000",
        "fs.s3a.bucket.flights.endpoint": "minio:9000",
        "fs.s3a.bucket.others.endpoint": "other:9000",
        "fs.s3a.connection.ssl.enabled": "false",
        "fs.s3a.endpoint.region": "here",
    }
    store = found(hadoop, {**HERE, "AWS_ENDPOINT_URL": "http://env:9000"})
    assert (store.endpoint, store.region) == ("http://minio:9000", "here")
    assert (store.access_key, store.secret_key) == ("all-key", "all-secret")
    assert store.session_token is None
    assert store.credentials == "spark.hadoop.fs.s3a.access.key"


def test_half_a_pair_of_keys_is_none() -> None:
    store = found({"fs.s3a.access.key": "alone"}, HERE)
    assert store.access_key == "env-key"
    bare = found({"fs.s3a.access.key": "alone"}, {"AWS_REGION": "x"})
    assert bare.access_key is None
    assert "no AWS_ACCESS_KEY_ID is set" in bare.credentials


@pytest.mark.parametrize(
    ("hadoop", "environ"),
    [
        ({"fs.s3a.aws.credentials.provider": "a.b.AnonymousAWSCredentialsProvider"}, HERE),
        ({}, {**HERE, "AWS_SKIP_SIGNATURE": "true"}),
    ],
)
def test_who_wants_to_be_nobody_is(hadoop: dict[str, str], environ: dict[str, str]) -> None:
    store = found(hadoop, environ)
    assert store.is_anonymous
    assert store.access_key is None
    assert store.delta_options["AWS_SKIP_SIGNATURE"] == "true"


def test_region_of_amazons_own_store_must_be_known_and_that_of_others_need_not() -> None:
    for endpoint in ({}, {"fs.s3a.endpoint": "s3.amazonaws.com"}):
        with pytest.raises(EngineUnfitError, match=r"AWS_REGION.*endpoint\.region"):
            found(endpoint, KEYS)
    here = {**HERE, "AWS_ENDPOINT_URL": "http://env:9000/"}
    assert found({"fs.s3a.endpoint": "s3.amazonaws.com"}, here).endpoint == "http://env:9000"
    assert found({"fs.s3a.endpoint": "https://minio"}, KEYS).region == "us-east-1"
    assert found({}, {**KEYS, "AWS_DEFAULT_REGION": "x"}).region == "x"


@pytest.mark.parametrize(
    ("hadoop", "said"),
    [
        ({"fs.s3a.encryption.algorithm": "SSE-KMS"}, "encryption.algorithm is set"),
        ({"fs.s3a.bucket.flights.assumed.role.arn": "arn"}, "assumed.role.arn is set"),
        ({"fs.s3a.aws.credentials.provider": "a.B, com.acme.Vault"}, "names B"),
        ({"fs.s3a.endpoint": "https://host/minio"}, "has a path: '/minio'"),
    ],
)
def test_what_only_hadoops_client_does_is_left_to_spark(hadoop: dict[str, str], said: str) -> None:
    with pytest.raises(EngineUnfitError, match=said):
        found(hadoop, HERE)


def test_keys_are_in_no_text_of_a_store() -> None:
    store = found({}, {**HERE, "AWS_SESSION_TOKEN": "env-token"})
    for secret in ("env-key", "env-secret", "env-token"):
        assert secret not in repr(store) + str(store) + repr(store_path(store, URI))
        assert store.without_secrets(f"of {secret}.") == "of ***."


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://flights/2013", "the source lies in gs"),
        ("wasbs://flights@host/2013", "the source lies in wasbs"),
        ("s3a://flights/a?b", "'%' with digits"),
        ("s3a://flights/a%20b", "'%' with digits"),
        ("s3a://flights/a//b", "'//'"),
    ],
)
def test_place_that_only_spark_can_reach_is_named(uri: str, said: str) -> None:
    with pytest.raises(EngineUnfitError, match=said):
        check_place(uri, "source")


def test_uri_with_credentials_is_refused_without_showing_them() -> None:
    with pytest.raises(InvalidNameError, match="AWS_ACCESS_KEY_ID") as caught:
        check_place("s3a://AKIA:s3cret@flights/2013", "target")
    assert "AKIA:" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3a://flights", "s3a://flights/", "s3a:///x"])
def test_bucket_and_folder_must_be_named(uri: str) -> None:
    with pytest.raises(InvalidNameError, match="s3a://BUCKET/FOLDER"):
        check_place(uri, "target")


@pytest.mark.parametrize("uri", ["s3a://flights/2013/", "s3://flights/2013", "s3n://flights/2013"])
def test_names_of_hadoop_mean_one_place(uri: str) -> None:
    check_place(uri, "source")
    assert str(store_path(found({}, HERE), uri)) == "s3://flights/2013"
