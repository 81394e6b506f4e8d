"""Which storage account a URI means and who asks it."""

from __future__ import annotations

import pytest

from sparkscore.errors import EngineUnfitError, InvalidNameError
from sparkscore.files.azure_settings import azure_store
from sparkscore.files.azure_store import AzureStore
from sparkscore.files.filesystem import StorePath, check_place, store_path
from sparkscore.files.log import file_path

HOST = "lake.dfs.core.windows.net"
URI = f"abfss://flights@{HOST}/2013/jan"
KEYS = {"AZURE_STORAGE_ACCOUNT_KEY": "env-key"}


def found(settings: dict[str, str], environ: dict[str, str], uri: str = URI) -> AzureStore | None:
    return azure_store(uri, lambda name: settings.get(name, ""), environ)


def test_key_of_an_account_wins_over_that_of_all_and_both_over_the_variable() -> None:
    of_all = {"fs.azure.account.key": "of all"}
    of_one = {f"fs.azure.account.key.{HOST}": "of one"}
    for settings, wanted in ((of_one | of_all, "of one"), (of_all, "of all"), ({}, "env-key")):
        assert (store := found(settings, KEYS)) is not None
        assert (store.account, store.account_key) == ("lake", wanted)
        assert wanted not in repr(store)
        assert store.without_secrets(f"of {wanted}.") == "of ***."


def test_path_goes_to_its_uri_and_back() -> None:
    store = found({}, KEYS)
    assert store is not None
    path = store_path(store, URI.replace("abfss", "abfs") + "/")
    assert path == StorePath(store, "flights/2013/jan")
    assert str(path) == URI
    assert str(StorePath(store, path.bucket)) == f"abfss://flights@{HOST}"
    assert (
        file_path(path, f"abfss://flights@{HOST}/2013/a%20b") == f"abfss://flights@{HOST}/2013/a b"
    )
    with pytest.raises(EngineUnfitError, match="has files in abfss"):
        file_path(path, "abfss://flights@other.dfs.core.windows.net/2013/x")


@pytest.mark.parametrize(
    ("settings", "environ", "said"),
    [
        ({}, {}, "neither AZURE_STORAGE_ACCOUNT_KEY nor fs.azure.account.key names a key"),
        ({}, {**KEYS, "AZURE_STORAGE_ACCOUNT_NAME": "other"}, "names a key of 'lake'"),
        ({f"fs.azure.account.auth.type.{HOST}": "OAuth"}, KEYS, "auth.type is 'OAuth'"),
        ({"fs.azure.account.keyprovider": "com.acme.Vault"}, KEYS, "keyprovider is set"),
        ({"fs.azure.encryption.context.provider.type": "x"}, KEYS, "provider.type is set"),
    ],
)
def test_what_only_sparks_client_heeds_is_left_to_spark(
    settings: dict[str, str], environ: dict[str, str], said: str
) -> None:
    with pytest.raises(EngineUnfitError) as caught:
        found(settings, environ)
    assert said in str(caught.value)


def test_account_that_is_not_at_azures_own_place_is_left_to_spark() -> None:
    with pytest.raises(EngineUnfitError, match=r"at 'dfs\.core\.chinacloudapi\.cn'"):
        found({}, KEYS, "abfss://flights@lake.dfs.core.chinacloudapi.cn/2013")


@pytest.mark.parametrize("uri", [f"abfss://{HOST}/2013", f"abfss://flights@{HOST}/", "abfss:///a"])
def test_uri_that_names_no_container_or_folder_is_refused(uri: str) -> None:
    with pytest.raises(InvalidNameError, match="not of the form abfss://CONTAINER@ACCOUNT"):
        check_place(uri, "source")


def test_uri_with_a_key_is_refused_and_the_key_is_not_shown() -> None:
    with pytest.raises(InvalidNameError, match="AZURE_STORAGE_ACCOUNT_KEY") as caught:
        check_place(f"abfss://flights:s3cret@{HOST}/2013", "target")
    assert "s3cret" not in str(caught.value)
