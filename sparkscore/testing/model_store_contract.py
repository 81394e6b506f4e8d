"""What every ModelStore does; an implementation's tests subclass `ModelStoreContract`."""

from __future__ import annotations

from collections.abc import Callable
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
from sparkscore.records import ModelVersion, Stage, VersionStatus
from sparkscore.stores.models_base import ModelStore

_FLIGHTS = ModelName("flight-delay")
_DELAYS = ModelName("delays")
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

    def test_a_version_keeps_what_it_was_made_with(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        made = store.create_version(
            _FLIGHTS, source="s3://b/m", run_link="https://h/r", model_id="m-1", user_id="ann"
        )
        assert (made.run_link, made.model_id, made.user_id) == ("https://h/r", "m-1", "ann")
        assert made.stage is Stage.NONE
        assert store.get_version(_FLIGHTS, 1) == made
        with pytest.raises(UsageError, match="source"):
            store.create_version(_FLIGHTS, source="x" * 2049)
        with pytest.raises(InvalidNameError, match="model id"):
            store.create_version(_FLIGHTS, source="s3://b/m", model_id="../m")

    def test_a_model_is_renamed_with_all_that_it_has(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS, "d", {"a": "b"})
        _ready(store)
        store.set_version_tags(_FLIGHTS, 1, {"k": "v"})
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        renamed = store.rename_model(_FLIGHTS, _DELAYS)
        assert (renamed.name, renamed.description, renamed.tags) == ("delays", "d", {"a": "b"})
        assert store.get_model(_DELAYS) == renamed
        version = store.get_version_by_alias(_DELAYS, _CHAMPION)
        assert (version.name, version.version, version.tags) == ("delays", 1, {"k": "v"})
        assert store.create_version(_DELAYS, source="s3://b/m").version == 2
        with pytest.raises(RecordNotFoundError):
            store.get_model(_FLIGHTS)

    def test_a_model_is_not_renamed_to_one_that_is_there(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS)
        store.create_model(_DELAYS)
        with pytest.raises(RecordExistsError, match="'delays'"):
            store.rename_model(_FLIGHTS, _DELAYS)
        assert store.rename_model(_FLIGHTS, _FLIGHTS).name == _FLIGHTS

    def test_a_model_and_a_version_are_described(self, store: ModelStore) -> None:
        created = _ready(store)
        model = store.describe_model(_FLIGHTS, "of models")
        assert (model.description, store.get_model(_FLIGHTS)) == ("of models", model)
        version = store.describe_version(_FLIGHTS, 1, "of versions")
        assert (version.description, store.get_version(_FLIGHTS, 1)) == ("of versions", version)
        assert version.last_update_time_ms > created.last_update_time_ms
        with pytest.raises(UsageError, match="description"):
            store.describe_model(_FLIGHTS, "x" * 5001)
        with pytest.raises(UsageError, match="description"):
            store.describe_version(_FLIGHTS, 1, "x" * 5001)

    def test_tags_of_a_model_are_added_replaced_and_removed(self, store: ModelStore) -> None:
        store.create_model(_FLIGHTS, tags={"a": "1", "b": "1"})
        store.set_model_tags(_FLIGHTS, {"b": "2", "c": "3"})
        for _ in range(2):
            store.delete_model_tag(_FLIGHTS, "a")
        assert store.get_model(_FLIGHTS).tags == {"b": "2", "c": "3"}
        with pytest.raises(InvalidNameError):
            store.set_model_tags(_FLIGHTS, {"": "1"})
        with pytest.raises(UsageError, match="100001 characters"):
            store.set_model_tags(_FLIGHTS, {"a": "x" * 100_001})

    def test_a_tag_of_a_version_is_removed(self, store: ModelStore) -> None:
        _ready(store)
        store.set_version_tags(_FLIGHTS, 1, {"a": "1", "b": "1"})
        for _ in range(2):
            store.delete_version_tag(_FLIGHTS, 1, "a")
        assert store.get_version(_FLIGHTS, 1).tags == {"b": "1"}

    def test_a_deleted_model_is_gone_with_all_that_it_had(self, store: ModelStore) -> None:
        _ready(store)
        store.set_version_tags(_FLIGHTS, 1, {"a": "1"})
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        store.delete_model(_FLIGHTS)
        assert list(store.list_models()) == []
        again = _ready(store)
        assert (again.version, again.tags, again.aliases) == (1, {}, ())
        assert store.get_model(_FLIGHTS).aliases == {}

    def test_the_number_of_a_deleted_version_is_not_given_again(self, store: ModelStore) -> None:
        _ready(store)
        _ready(store)
        store.set_alias(_FLIGHTS, _CHAMPION, 2)
        store.set_alias(_FLIGHTS, AliasName("old"), 1)
        store.delete_version(_FLIGHTS, 2)
        assert [version.version for version in store.list_versions(_FLIGHTS)] == [1]
        assert store.get_model(_FLIGHTS).aliases == {"old": 1}
        with pytest.raises(RecordNotFoundError, match="it has 1"):
            store.get_version(_FLIGHTS, 2)
        assert store.create_version(_FLIGHTS, source="s3://b/m").version == 3

    def test_a_version_moves_between_stages(self, store: ModelStore) -> None:
        for _ in range(3):
            _ready(store)
        for number in (1, 2):
            store.move_version(_FLIGHTS, number, Stage.PRODUCTION, archive_others=False)
        moved = store.move_version(_FLIGHTS, 3, Stage.PRODUCTION, archive_others=True)
        assert (moved.stage, store.get_version(_FLIGHTS, 3)) == (Stage.PRODUCTION, moved)
        stages = [version.stage for version in store.list_versions(_FLIGHTS)]
        assert stages == [Stage.PRODUCTION, Stage.ARCHIVED, Stage.ARCHIVED]
        assert store.get_version(_FLIGHTS, 1).last_update_time_ms == moved.last_update_time_ms
        with pytest.raises(UsageError, match="archive_others"):
            store.move_version(_FLIGHTS, 1, Stage.NONE, archive_others=True)

    def test_an_alias_is_removed(self, store: ModelStore) -> None:
        _ready(store)
        store.set_alias(_FLIGHTS, _CHAMPION, 1)
        for _ in range(2):
            store.delete_alias(_FLIGHTS, _CHAMPION)
        assert store.get_version(_FLIGHTS, 1).aliases == ()
        with pytest.raises(RecordNotFoundError, match="it has none"):
            store.get_version_by_alias(_FLIGHTS, _CHAMPION)

    def test_an_unknown_model_or_version_is_refused_everywhere(self, store: ModelStore) -> None:
        _ready(store)
        of_models: list[Callable[[], object]] = [
            lambda: store.rename_model(_DELAYS, _FLIGHTS),
            lambda: store.describe_model(_DELAYS, "d"),
            lambda: store.delete_model(_DELAYS),
            lambda: store.set_model_tags(_DELAYS, {"a": "1"}),
            lambda: store.delete_model_tag(_DELAYS, "a"),
            lambda: store.delete_alias(_DELAYS, _CHAMPION),
        ]
        for call in of_models:
            with pytest.raises(RecordNotFoundError, match="'delays'"):
                call()
        of_versions: list[Callable[[], object]] = [
            lambda: store.describe_version(_FLIGHTS, 9, "d"),
            lambda: store.move_version(_FLIGHTS, 9, Stage.STAGING, archive_others=False),
            lambda: store.delete_version(_FLIGHTS, 9),
            lambda: store.delete_version_tag(_FLIGHTS, 9, "a"),
        ]
        for call in of_versions:
            with pytest.raises(RecordNotFoundError, match="it has 1"):
                call()


def _ready(store: ModelStore) -> ModelVersion:
    if not store.list_models():
        store.create_model(_FLIGHTS)
    pending = store.create_version(_FLIGHTS, source="s3://b/m")
    return store.finish_version(_FLIGHTS, pending.version, VersionStatus.READY, digest=_DIGEST)
