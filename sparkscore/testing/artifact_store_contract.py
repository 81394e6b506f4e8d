"""What every ArtifactStore does; an implementation's tests subclass `ArtifactStoreContract`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from sparkscore.errors import RecordNotFoundError, UsageError
from sparkscore.names import ArtifactPath
from sparkscore.records import ArtifactInfo
from sparkscore.stores.base import ArtifactStore

_ROOT = ArtifactPath("")
_PLAN = ArtifactPath("plans/plan.json")


class ArtifactStoreContract:
    """Subclass with `implementation` and a fixture `store`: a new, empty store."""

    implementation: ClassVar[type]

    def test_the_root_is_a_uri_without_a_slash_at_its_end(self, store: ArtifactStore) -> None:
        assert ":" in store.root_uri
        assert not store.root_uri.endswith("/")

    def test_a_file_comes_back(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_file(tmp_path, b"one\0\xff"), _PLAN)
        got = store.get(_PLAN, tmp_path / "back.json")
        assert got == tmp_path / "back.json"
        assert got.read_bytes() == b"one\0\xff"

    def test_an_empty_file_comes_back(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_file(tmp_path, b""), _PLAN)
        assert store.get(_PLAN, tmp_path / "back.json").read_bytes() == b""

    def test_a_second_file_replaces_the_first(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_file(tmp_path, b"one"), _PLAN)
        store.put(_file(tmp_path, b"two"), _PLAN)
        assert store.get(_PLAN, tmp_path / "back.json").read_bytes() == b"two"

    def test_a_folder_comes_back(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_folder(tmp_path), ArtifactPath("model"))
        got = store.get(ArtifactPath("model"), tmp_path / "back")
        assert (got / "MLmodel").read_bytes() == b"flavors"
        assert (got / "data" / "model.bin").read_bytes() == b"bytes"

    def test_a_file_of_a_folder_comes_back(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_folder(tmp_path), ArtifactPath("model"))
        got = store.get(ArtifactPath("model/data/model.bin"), tmp_path / "model.bin")
        assert got.read_bytes() == b"bytes"

    def test_a_folder_at_the_root_joins_what_is_there(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        store.put(_file(tmp_path, b"one"), _PLAN)
        store.put(_folder(tmp_path), _ROOT)
        names = [info.path for info in store.list(_ROOT)]
        assert names == ["MLmodel", "data", "plans"]

    def test_get_makes_the_folders_on_the_way(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_file(tmp_path, b"one"), _PLAN)
        assert store.get(_PLAN, tmp_path / "a" / "b" / "c").read_bytes() == b"one"

    def test_get_overwrites_nothing(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_file(tmp_path, b"one"), _PLAN)
        (tmp_path / "mine").write_text("mine")
        with pytest.raises(UsageError, match="exists already"):
            store.get(_PLAN, tmp_path / "mine")
        assert (tmp_path / "mine").read_text() == "mine"

    def test_a_local_file_that_is_not_there_is_refused(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        with pytest.raises(RecordNotFoundError, match="nothing-here"):
            store.put(tmp_path / "nothing-here", _PLAN)

    def test_an_unknown_artifact_is_refused(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(RecordNotFoundError, match=r"plans/plan\.json"):
            store.get(_PLAN, tmp_path / "back")
        assert not (tmp_path / "back").exists()

    def test_a_file_does_not_become_a_folder(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_file(tmp_path, b"one"), _PLAN)
        with pytest.raises(UsageError, match="file and a folder"):
            store.put(_file(tmp_path, b"two"), ArtifactPath("plans/plan.json/more"))
        with pytest.raises(UsageError, match="file and a folder"):
            store.put(_file(tmp_path, b"two"), ArtifactPath("plans"))
        assert store.get(_PLAN, tmp_path / "back").read_bytes() == b"one"

    def test_a_folder_is_listed_by_name(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_folder(tmp_path), ArtifactPath("model"))
        assert list(store.list(ArtifactPath("model"))) == [
            ArtifactInfo("model/MLmodel", is_folder=False, n_bytes=7),
            ArtifactInfo("model/data", is_folder=True, n_bytes=None),
        ]
        assert list(store.list(_ROOT)) == [ArtifactInfo("model", is_folder=True, n_bytes=None)]

    def test_a_file_or_nothing_lists_nothing(self, store: ArtifactStore, tmp_path: Path) -> None:
        assert list(store.list(_ROOT)) == []
        store.put(_file(tmp_path, b"one"), _PLAN)
        assert list(store.list(_PLAN)) == []
        assert list(store.list(ArtifactPath("nothing"))) == []

    def test_a_deleted_file_is_gone_and_its_neighbour_stays(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        store.put(_file(tmp_path, b"one"), _PLAN)
        store.put(_file(tmp_path, b"two"), ArtifactPath("plans/other"))
        store.delete(_PLAN)
        assert [info.path for info in store.list(ArtifactPath("plans"))] == ["plans/other"]

    def test_a_deleted_folder_is_gone_whole(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.put(_folder(tmp_path), ArtifactPath("model"))
        store.delete(ArtifactPath("model"))
        assert list(store.list(_ROOT)) == []

    def test_to_delete_nothing_does_nothing(self, store: ArtifactStore) -> None:
        store.delete(_PLAN)
        assert list(store.list(_ROOT)) == []


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "local-file"
    path.write_bytes(content)
    return path


def _folder(folder: Path) -> Path:
    path = folder / "local-folder"
    (path / "data").mkdir(parents=True)
    (path / "MLmodel").write_bytes(b"flavors")
    (path / "data" / "model.bin").write_bytes(b"bytes")
    return path
