from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import obstore
import pytest
from obstore.store import S3Store

from sparkscore.errors import (
    InvalidNameError,
    MissingExtraError,
    StoreUnavailableError,
    UsageError,
)
from sparkscore.names import ArtifactPath
from sparkscore.stores.fsspec_objects import FsspecObjects
from sparkscore.stores.object_files import ObjectArtifactStore
from sparkscore.testing.artifact_store_contract import ArtifactStoreContract
from sparkscore.testing.s3_server import S3Server

PATH = ArtifactPath("a/file.bin")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server().running() as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, reached as any library would reach it."""
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return server.new_bucket().bucket


@pytest.fixture
def store(bucket: str) -> ObjectArtifactStore:
    return ObjectArtifactStore.at(f"s3://{bucket}/team a/50%")


class TestS3ArtifactStore(ArtifactStoreContract):
    implementation = ObjectArtifactStore

    @pytest.fixture
    def store(self, bucket: str) -> ObjectArtifactStore:
        return ObjectArtifactStore.at(f"s3://{bucket}/team a/50%")


class TestMemoryFileSystem(ArtifactStoreContract):
    implementation = ObjectArtifactStore

    @pytest.fixture
    def store(self) -> ObjectArtifactStore:
        return ObjectArtifactStore.at(f"memory://{uuid.uuid4().hex}/root")


class TestFileSystemOfThisMachine(ArtifactStoreContract):
    implementation = ObjectArtifactStore

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectArtifactStore:
        return ObjectArtifactStore.at((tmp_path / "the root").as_uri().replace("%20", " "))


def test_bucket_itself_may_be_the_root(bucket: str, tmp_path: Path) -> None:
    store = ObjectArtifactStore.at(f"s3a://{bucket}/")
    assert store.root_uri == f"s3a://{bucket}"
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "x").write_bytes(b"x")
    store.put(tmp_path / "folder", ArtifactPath(""))
    assert [info.path for info in store.list(ArtifactPath(""))] == ["sub"]
    assert (store.get(ArtifactPath(""), tmp_path / "b") / "sub" / "x").read_bytes() == b"x"
    store.delete(ArtifactPath(""))
    assert list(store.list(ArtifactPath(""))) == []


def test_large_file_goes_up_in_parts_and_comes_back(
    store: ObjectArtifactStore, server: S3Server, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4096 * 17  # 17 MiB: two whole parts, and a piece
    (tmp_path / "large").write_bytes(content)
    server.requests.clear()
    store.put(tmp_path / "large", PATH)
    methods = [method for method, path in server.requests if path.endswith("file.bin")]
    assert (methods.count("POST"), methods.count("PUT")) == (2, 3)  # begun, three parts, completed
    assert store.get(PATH, tmp_path / "back").read_bytes() == content


def test_upload_that_breaks_off_leaves_what_was_there(
    store: ObjectArtifactStore, server: S3Server, tmp_path: Path
) -> None:
    (tmp_path / "first").write_bytes(b"first")
    store.put(tmp_path / "first", PATH)
    (tmp_path / "second").write_bytes(b"second" * 2_000_000)
    server.refuses = "file.bin"
    with pytest.raises(StoreUnavailableError, match=r"file\.bin.*403"):
        store.put(tmp_path / "second", PATH)
    server.refuses = None
    assert store.get(PATH, tmp_path / "back").read_bytes() == b"first"


def test_changed_bytes_are_told_when_they_are_read(
    store: ObjectArtifactStore, bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    store.put(tmp_path / "file", PATH)
    raw = S3Store(bucket, client_options={"allow_http": True})
    key = f"team a/50%/{PATH}"
    attributes = obstore.get(raw, key).attributes
    obstore.put(raw, key, b"Mine", attributes=attributes)
    with pytest.raises(StoreUnavailableError, match="SHA-256"):
        store.get(PATH, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    # Others' files carry no digest, and are taken as they are.
    obstore.put(raw, key, b"theirs")
    assert store.get(PATH, tmp_path / "back").read_bytes() == b"theirs"


def test_named_endpoint_wins_over_the_variables(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    named = server.environ["AWS_ENDPOINT_URL"]
    (tmp_path / "file").write_bytes(b"mine")
    store = ObjectArtifactStore.at(f"s3://{bucket}", s3_endpoint=named)
    store.put(tmp_path / "file", PATH)
    assert [info.path for info in store.list(ArtifactPath("a"))] == [PATH]


def test_bucket_that_is_not_there_is_unavailable(
    server: S3Server, bucket: str, tmp_path: Path
) -> None:
    assert server.environ
    (tmp_path / "file").touch()
    store = ObjectArtifactStore.at(f"s3://{bucket}-other")
    with pytest.raises(StoreUnavailableError, match="Check the bucket"):
        store.put(tmp_path / "file", PATH)


def test_object_whose_name_no_file_may_have_is_refused(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/odd/m/../x", b"out")
    odd = ObjectArtifactStore(FsspecObjects(memory, "/odd"), "memory://odd")
    with pytest.raises(InvalidNameError, match="no file may have"):
        odd.get(ArtifactPath("m"), tmp_path / "got")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("nosuch://host/a", "no kind that is known"),
        ("sftp://ann:secret@host/a", "holds a password"),
        ("s3://bucket/a?b", "'\\?' or '#'"),
    ],
)
def test_place_that_cannot_be_is_refused(uri: str, told: str) -> None:
    with pytest.raises(InvalidNameError, match=told) as caught:
        ObjectArtifactStore.at(uri)
    assert "secret" not in str(caught.value)


def test_missing_library_names_its_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"sparkscore\[sftp\]"):
        ObjectArtifactStore.at("sftp://host/a")


def test_file_that_is_being_written_is_not_seen(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(fsspec.get_filesystem_class("memory")):  # type: ignore[misc]
        cachable = False

        def put_file(self, lpath: str, rpath: str, **options: object) -> None:
            super().put_file(lpath, rpath, **options)
            begun.set()
            assert go_on.wait(30)

    store = ObjectArtifactStore(FsspecObjects(Slow(), f"/{uuid.uuid4().hex}"), "memory://slow")
    (tmp_path / "file").write_bytes(b"mine")
    writing = threading.Thread(target=lambda: store.put(tmp_path / "file", PATH))
    writing.start()
    assert begun.wait(30)
    assert list(store.list(ArtifactPath(""))) == [
        info for info in store.list(ArtifactPath("")) if info.path == "a"
    ]
    assert list(store.list(ArtifactPath("a"))) == []
    go_on.set()
    writing.join()
    assert [info.path for info in store.list(ArtifactPath("a"))] == [PATH]


def test_staging_names_are_refused(store: ObjectArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidNameError, match="starts with"):
        store.put(tmp_path / "file", ArtifactPath(".incoming-1"))


def test_folder_with_a_file_in_the_place_of_a_folder_is_refused(
    store: ObjectArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "one" / "x").mkdir(parents=True)
    (tmp_path / "one" / "x" / "deep").write_bytes(b"1")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "x").write_bytes(b"2")
    store.put(tmp_path / "one", ArtifactPath("m"))
    with pytest.raises(UsageError, match=r"'m/x'.*file and a folder"):
        store.put(tmp_path / "two", ArtifactPath("m"))
    store.delete(ArtifactPath("m"))
    store.put(tmp_path / "two", ArtifactPath("m"))
    with pytest.raises(UsageError, match=r"'m/x'.*file and a folder"):
        store.put(tmp_path / "one", ArtifactPath("m"))
