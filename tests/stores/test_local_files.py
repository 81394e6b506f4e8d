from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparkscore.errors import InvalidNameError, StoreUnavailableError, UsageError
from sparkscore.names import ArtifactPath
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.testing.artifact_store_contract import ArtifactStoreContract

A = ArtifactPath("a")


class TestLocalArtifactStore(ArtifactStoreContract):
    implementation = LocalArtifactStore

    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalArtifactStore:
        return LocalArtifactStore(tmp_path / "root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> LocalArtifactStore:
    return LocalArtifactStore(root)


@pytest.mark.parametrize("form", ["uri", "path", "spaced"])
def test_a_store_opens_at_a_uri_or_a_path(tmp_path: Path, form: str) -> None:
    root = tmp_path / ("with space%" if form == "spaced" else "root")
    opened = LocalArtifactStore.at(str(root) if form == "path" else root.as_uri())
    assert opened.root_uri == root.as_uri()


@pytest.mark.parametrize("uri", ["s3://bucket/a", "file://other-host/a", "mlflow-artifacts:/0"])
def test_a_location_elsewhere_is_refused(uri: str) -> None:
    with pytest.raises(InvalidNameError, match="not on this machine"):
        LocalArtifactStore.at(uri)


def test_a_link_in_the_root_does_not_lead_out(
    store: LocalArtifactStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    root.mkdir()
    (root / "up").symlink_to(tmp_path)
    (root / "a").symlink_to(tmp_path / "secret")
    (tmp_path / "new").touch()
    for path in (A, ArtifactPath("up/secret")):
        with pytest.raises(InvalidNameError, match="symbolic link"):
            store.get(path, tmp_path / "got")
        with pytest.raises(InvalidNameError, match="symbolic link"):
            store.put(tmp_path / "new", path)
        with pytest.raises(InvalidNameError, match="symbolic link"):
            store.delete(path)
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "got").exists()


def test_a_link_in_a_stored_folder_does_not_lead_out(
    store: LocalArtifactStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (root / "model").mkdir(parents=True)
    (root / "model" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="symbolic link out"):
        store.get(ArtifactPath("model"), tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_links_out_of_a_folder_that_is_put_are_refused(
    store: LocalArtifactStore, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "hosts").symlink_to("/etc/hosts")
    with pytest.raises(UsageError, match="symbolic link out"):
        store.put(folder, A)
    (folder / "hosts").unlink()
    (folder / "self").symlink_to(folder)
    with pytest.raises(UsageError, match="symbolic link to a folder"):
        store.put(folder, A)
    assert list(root.iterdir()) == []


def test_a_link_inside_a_folder_that_is_put_becomes_a_file(
    store: LocalArtifactStore, tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "real").write_text("x")
    (folder / "link").symlink_to(folder / "real")
    store.put(folder, A)
    got = store.get(ArtifactPath("a/link"), tmp_path / "got")
    assert got.read_text() == "x"
    assert not got.is_symlink()


def test_a_pipe_is_refused_and_never_opened(
    store: LocalArtifactStore, root: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        store.put(tmp_path / "pipe", A)
    with pytest.raises(UsageError, match="no regular file"):
        store.put(Path("/dev/zero"), A)
    os.mkfifo(root / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        store.get(ArtifactPath("pipe"), tmp_path / "got")


def test_a_put_that_breaks_off_leaves_the_old_file_and_no_rest(
    store: LocalArtifactStore, root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "f").write_text("old")
    store.put(folder, A)
    (folder / "f").write_text("new")
    os.mkfifo(folder / "pipe")
    with pytest.raises(UsageError):
        store.put(folder, A)
    assert [entry.name for entry in root.iterdir()] == ["a"]
    assert (root / "a" / "f").read_text() == "old"


def test_what_a_killed_put_left_is_not_listed(
    store: LocalArtifactStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "f").touch()
    store.put(tmp_path / "f", A)
    (root / ".incoming-0").touch()
    assert [info.path for info in store.list(ArtifactPath(""))] == ["a"]
    with pytest.raises(InvalidNameError, match="incoming"):
        store.put(tmp_path / "f", ArtifactPath(".incoming-0"))


def test_a_root_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "g").touch()
    with pytest.raises(UsageError, match="file and a folder"):
        LocalArtifactStore(tmp_path / "f").put(tmp_path / "g", A)
    with pytest.raises(StoreUnavailableError, match="/proc/none"):
        LocalArtifactStore(Path("/proc/none")).put(tmp_path / "g", A)


def test_a_name_too_long_for_the_file_system_is_refused(
    store: LocalArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(InvalidNameError, match="too long"):
        store.put(tmp_path / "f", ArtifactPath("x" * 300))
