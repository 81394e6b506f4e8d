"""What every ModelStore does; an implementation's tests subclass `ModelStoreContract`."""

from __future__ import annotations

from typing import ClassVar

import pytest

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    RecordExistsError,
    RecordNotFoundError,
    UsageError,
)
from sparkscore.names import AliasName, ModelName
from sparkscore.records import ModelVersion, VersionStatus
from sparkscore.stores.models_base import ModelStore

_FLIGHTS = ModelName("flight-delay")
_CHAMPION = AliasName("champion")
_DIGEST = "a" * 64


class ModelStoreContract:
    """Subclass with `implementation` and a fixture `store`: a new store with a ticking clock."""

    implementation: ClassVar[type]

    def test_a_new_store_has_no_models(self, store: ModelStore) -> None:
        assert list(store.list_models()) == []

    def test_a_created_model_is_found(self, store: ModelStore) -> None:
        created = store.create_model(_FLIGHTS, "arrival delay", {"team": "delay"})
        assert (created.description, created.tags) == ("arrival delay", {"team": "delay"})
        assert created.aliases == {}
        assert store.get_model(_FLIGHTS) == created

    def test_a_second_model_of_a_name_is_refused(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        with pytest.raises(RecordExistsError, match="'flight-delay'"):
            store.create_model(_FLIGHTS)

    def test_an_unknown_model_is_refused_with_the_nearest_name(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        near = ModelName("flight-delays")
        with pytest.raises(RecordNotFoundError, match="did you mean 'flight-delay'"):
            store.get_model(near)
        with pytest.raises(RecordNotFoundError, match="did you mean 'flight-delay'"):
            store.create_version(near, source="s3://b/m")
        with pytest.raises(RecordNotFoundError, match="did you mean 'flight-delay'"):
            store.list_versions(near)
        with pytest.raises(RecordNotFoundError, match="did you mean 'flight-delay'"):
            store.get_version_by_alias(near, _CHAMPION)

    def test_models_are_listed_by_name(self, store: ModelStore) -> None:
        for name in ("b", "C", "a"):
            store.create_model(ModelName(name))
        assert [model.name for model in store.list_models()] == ["C", "a", "b"]
        assert [model.name for model in store.list_models(limit=1)] == ["C"]

    def test_a_new_version_is_pending_with_the_next_number(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        first = store.create_version(
            _FLIGHTS, source="s3://b/m/1", run_id="r", description="d", tags={"k": "v"}
        )
        assert (first.version, first.status) == (1, VersionStatus.PENDING_REGISTRATION)
        assert (first.source, first.run_id, first.description) == ("s3://b/m/1", "r", "d")
        assert (first.digest, first.tags, first.aliases) == ("", {"k": "v"}, ())
        assert store.get_version(_FLIGHTS, 1) == first
        assert store.create_version(_FLIGHTS, source="s3://b/m").version == 2

    def test_a_failed_version_keeps_its_number(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        store.create_version(_FLIGHTS, source="s3://b/m")
        failed = store.finish_version(
            _FLIGHTS, 1, VersionStatus.FAILED_REGISTRATION, message="disk full"
        )
        assert failed.status is VersionStatus.FAILED_REGISTRATION
        assert failed.status_message == "disk full"
        assert store.create_version(_FLIGHTS, source="s3://b/m").version == 2

    def test_models_count_their_versions_apart(self, store: ModelStore) -> None:
        for name in ("a", "b"):
            store.create_model(ModelName(name))
            assert store.create_version(ModelName(name), source="s3://b/m").version == 1

    def test_a_pending_version_becomes_ready_with_digest_and_source(
        self, store: ModelStore
    ) -> None:
        store.create_model(_FLIGHTS)
        store.create_version(_FLIGHTS, source="s3://b/m")
        ready = store.finish_version(
            _FLIGHTS, 1, VersionStatus.READY, source="s3://b/m/1", digest=_DIGEST
        )
        assert (ready.status, ready.digest) == (VersionStatus.READY, _DIGEST)
        assert ready.source == "s3://b/m/1"
        assert store.get_version(_FLIGHTS, 1) == ready

    def test_a_version_is_finished_once(self, store: ModelStore) -> None:
        _ready(store)
        with pytest.raises(InvalidStateError, match="READY"):
            store.finish_version(_FLIGHTS, 1, VersionStatus.FAILED_REGISTRATION)

    def test_a_version_is_not_finished_as_pending(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        store.create_version(_FLIGHTS, source="s3://b/m")
        with pytest.raises(InvalidStateError, match="PENDING"):
            store.finish_version(_FLIGHTS, 1, VersionStatus.PENDING_REGISTRATION, digest=_DIGEST)

    def test_a_version_is_ready_without_a_digest_too(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        store.create_version(_FLIGHTS, source="s3://b/m")
        ready = store.finish_version(_FLIGHTS, 1, VersionStatus.READY)
        assert (ready.status, ready.digest) == (VersionStatus.READY, "")

    @pytest.mark.parametrize("version", [0, -1, 9, 2**70])
    def test_an_unknown_version_is_refused_with_the_known_ones(
        self, store: ModelStore, version: int
    ) -> None:
        _ready(store)
        with pytest.raises(RecordNotFoundError, match="it has 1"):
            store.get_version(_FLIGHTS, version)
        with pytest.raises(RecordNotFoundError, match="it has 1"):
            store.finish_version(_FLIGHTS, version, VersionStatus.READY, digest=_DIGEST)
        with pytest.raises(RecordNotFoundError, match="it has 1"):
            store.set_version_tags(_FLIGHTS, version, {"a": "b"})
        with pytest.raises(RecordNotFoundError, match="it has 1"):
            store.set_alias(_FLIGHTS, _CHAMPION, version)

    def test_versions_are_listed_highest_first(self, store: ModelStore) -> None:
        _ready(store)
        store.create_version(_FLIGHTS, source="s3://b/m")
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        store.set_version_tags(_FLIGHTS, 1, {"a": "b"})
        listed = store.list_versions(_FLIGHTS)
        assert [version.version for version in listed] == [2, 1]
        assert listed[1] == store.get_version(_FLIGHTS, 1)
        assert (listed[1].tags, listed[1].aliases) == ({"a": "b"}, ("champion",))

    def test_version_tags_are_added_and_replaced(self, store: ModelStore) -> None:
        _ready(store)
        store.set_version_tags(_FLIGHTS, 1, {"a": "1", "b": "1"})
        store.set_version_tags(_FLIGHTS, 1, {"b": "2"})
        store.set_version_tags(_FLIGHTS, 1, {})
        assert store.get_version(_FLIGHTS, 1).tags == {"a": "1", "b": "2"}

    def test_an_unusable_tag_is_refused(self, store: ModelStore) -> None:
        _ready(store)
        with pytest.raises(InvalidNameError):
            store.set_version_tags(_FLIGHTS, 1, {"": "1"})
        with pytest.raises(UsageError, match="100001 characters"):
            store.set_version_tags(_FLIGHTS, 1, {"a": "x" * 100_001})
        with pytest.raises(UsageError, match="description"):
            store.create_version(_FLIGHTS, source="s3://b/m", description="x" * 5001)
        assert len(store.list_versions(_FLIGHTS)) == 1

    def test_an_alias_points_at_its_version(self, store: ModelStore) -> None:
        _ready(store)
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        found = store.get_version_by_alias(_FLIGHTS, _CHAMPION)
        assert (found.version, found.aliases) == (1, ("champion",))
        assert store.get_model(_FLIGHTS).aliases == {"champion": 1}

    def test_an_alias_moves(self, store: ModelStore) -> None:
        _ready(store)
        _ready(store)
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        store.set_alias(_FLIGHTS, AliasName("old"), 1)
        store.set_alias(_FLIGHTS, _CHAMPION, 2)
        assert store.get_version_by_alias(_FLIGHTS, _CHAMPION).version == 2
        assert store.get_version(_FLIGHTS, 1).aliases == ("old",)
        assert store.get_model(_FLIGHTS).aliases == {"champion": 2, "old": 1}

    def test_an_alias_points_at_ready_versions_only(self, store: ModelStore) -> None:
        _ready(store)
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        store.create_version(_FLIGHTS, source="s3://b/m")
        with pytest.raises(InvalidStateError, match="PENDING_REGISTRATION"):
            store.set_alias(_FLIGHTS, _CHAMPION, 2)
        store.finish_version(_FLIGHTS, 2, VersionStatus.FAILED_REGISTRATION, message="disk full")
        with pytest.raises(InvalidStateError, match="disk full"):
            store.set_alias(_FLIGHTS, _CHAMPION, 2)
        assert store.get_version_by_alias(_FLIGHTS, _CHAMPION).version == 1

    def test_an_unknown_alias_is_refused_with_the_known_ones(self, store: ModelStore) -> None:
        _ready(store)
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        with pytest.raises(RecordNotFoundError, match="it has 'champion'"):
            store.get_version_by_alias(_FLIGHTS, AliasName("challenger"))


def _ready(store: ModelStore) -> ModelVersion:
    if not store.list_models():
        store.create_model(_FLIGHTS)
    pending = store.create_version(_FLIGHTS, source="s3://b/m")
    return store.finish_version(_FLIGHTS, pending.version, VersionStatus.READY, digest=_DIGEST)
