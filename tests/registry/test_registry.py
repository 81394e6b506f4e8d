from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sparkscore.errors import (
    InvalidNameError,
    InvalidStateError,
    ModelNotFoundError,
    PackageDigestError,
    PackageFormatError,
    StoreUnavailableError,
)
from sparkscore.names import AliasName, ArtifactPath, ModelName, parse_model_name, parse_model_uri
from sparkscore.package import compute_seal, seal
from sparkscore.package.signing import signers
from sparkscore.records import VersionStatus
from sparkscore.registry import Registry
from sparkscore.stores.local_files import LocalArtifactStore
from sparkscore.stores.memory import MemoryModelStore
from sparkscore.testing.clock import ticking_clock
from sparkscore.testing.faults import Fault, failing

FLIGHTS = ModelName("flight-delay")
CHAMPION = AliasName("champion")


@pytest.fixture
def models() -> MemoryModelStore:
    return MemoryModelStore(ticking_clock())


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def registry(models: MemoryModelStore, artifacts: LocalArtifactStore) -> Registry:
    return Registry(models, artifacts)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return _package(tmp_path / "package", b"model")


def _package(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  toy:\n    data: model.bin\n")
    (folder / "model.bin").write_bytes(content)
    return folder


def test_a_package_becomes_a_ready_version_with_its_digest(
    registry: Registry, package: Path, artifacts: LocalArtifactStore, tmp_path: Path
) -> None:
    version = registry.register(package, FLIGHTS, description="d", tags={"a": "b"}, run_id="r")
    assert (version.version, version.status) == (1, VersionStatus.READY)
    assert (version.description, version.tags, version.run_id) == ("d", {"a": "b"}, "r")
    root = f"{artifacts.root_uri}/models/flight-delay/"
    assert version.source.startswith(root)
    place = ArtifactPath(version.source.removeprefix(f"{artifacts.root_uri}/"))
    stored = artifacts.get(place, tmp_path / "stored")
    assert compute_seal(stored).digest == version.digest == compute_seal(package).digest


def test_registering_leaves_the_users_folder_as_it_is(registry: Registry, package: Path) -> None:
    registry.register(package, FLIGHTS)
    assert sorted(path.name for path in package.iterdir()) == ["MLmodel", "model.bin"]


def test_the_alias_moves_to_the_new_version(registry: Registry, package: Path) -> None:
    registry.register(package, FLIGHTS, alias=CHAMPION)
    second = registry.register(package, FLIGHTS, alias=CHAMPION)
    assert second.aliases == ("champion",)
    assert registry.get_model(FLIGHTS).aliases == {"champion": 2}


def test_what_is_no_package_registers_nothing(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(PackageFormatError):
        registry.register(tmp_path, FLIGHTS)
    assert list(registry.list_models()) == []


def test_a_package_that_was_changed_since_its_seal_registers_nothing(
    registry: Registry, package: Path
) -> None:
    seal(package)
    (package / "model.bin").write_bytes(b"mOdel")
    with pytest.raises(PackageDigestError, match=r"model\.bin"):
        registry.register(package, FLIGHTS)
    assert list(registry.list_models()) == []


@pytest.mark.parametrize("calls_left", [0, 1])
def test_a_failing_artifact_store_leaves_a_failed_version_and_the_alias(
    models: MemoryModelStore, artifacts: LocalArtifactStore, package: Path, calls_left: int
) -> None:
    Registry(models, artifacts).register(package, FLIGHTS, alias=CHAMPION)
    going_down = failing(artifacts, Fault(calls_left=calls_left))
    with pytest.raises(StoreUnavailableError):
        Registry(models, going_down).register(package, FLIGHTS, alias=CHAMPION)
    failed = models.get_version(FLIGHTS, 2)
    assert failed.status is VersionStatus.FAILED_REGISTRATION
    assert failed.status_message == "the store is down, as the test wants it"
    assert models.get_model(FLIGHTS).aliases == {"champion": 1}


def test_bytes_that_come_back_changed_are_never_ready(
    models: MemoryModelStore, tmp_path: Path, package: Path
) -> None:
    class FlippingStore(LocalArtifactStore):
        def get(self, path: ArtifactPath, local: Path) -> Path:
            got = super().get(path, local)
            (got / "model.bin").write_bytes(b"mOdel")
            return got

    with pytest.raises(PackageDigestError, match=r"model\.bin"):
        Registry(models, FlippingStore(tmp_path / "bad")).register(package, FLIGHTS)
    assert models.get_version(FLIGHTS, 1).status is VersionStatus.FAILED_REGISTRATION


@pytest.mark.parametrize("calls_left", range(5))
def test_a_failing_model_store_never_leaves_a_half_version_resolvable(
    models: MemoryModelStore,
    artifacts: LocalArtifactStore,
    package: Path,
    tmp_path: Path,
    calls_left: int,
) -> None:
    going_down = failing(models, Fault(calls_left=calls_left))
    registry = Registry(models, artifacts)
    try:
        Registry(going_down, artifacts).register(package, FLIGHTS, alias=CHAMPION)
    except StoreUnavailableError:
        with pytest.raises(ModelNotFoundError):
            registry.resolve(parse_model_uri("models:/flight-delay@champion"), tmp_path / "c")
    else:
        pytest.fail("the store failed and register did not say so")


def test_package_that_lies_somewhere_already_is_registered_where_it_is(
    models: MemoryModelStore, artifacts: LocalArtifactStore, package: Path, tmp_path: Path
) -> None:
    kept = (tmp_path / "run" / "model").as_uri()
    LocalArtifactStore.at(kept).put(package, ArtifactPath(""))
    registry = Registry(models, artifacts, LocalArtifactStore.at)
    version = registry.register(package, FLIGHTS, kept_at=kept, alias=CHAMPION)
    assert (version.source, version.digest) == (kept, compute_seal(package).digest)
    assert list(artifacts.list(ArtifactPath(""))) == []
    pinned = registry.resolve(parse_model_uri("models:/flight-delay@champion"), tmp_path / "c")
    assert (pinned.folder / "model.bin").read_bytes() == b"model"
    (tmp_path / "run" / "model" / "model.bin").write_bytes(b"other")
    with pytest.raises(PackageDigestError, match="with digest"):
        registry.register(package, FLIGHTS, kept_at=kept, alias=CHAMPION)
    assert registry.get_model(FLIGHTS).aliases == {"champion": 1}


def test_version_that_others_registered_is_pinned_to_its_bytes_of_now(
    models: MemoryModelStore, artifacts: LocalArtifactStore, package: Path, tmp_path: Path
) -> None:
    models.create_model(FLIGHTS)
    models.create_version(FLIGHTS, source=package.as_uri())
    models.finish_version(FLIGHTS, 1, VersionStatus.READY)
    registry = Registry(models, artifacts, LocalArtifactStore.at)
    ref = parse_model_uri("models:/flight-delay/1")
    first = registry.resolve(ref, tmp_path / "cache")
    assert first.digest == compute_seal(package).digest
    assert registry.resolve(ref, tmp_path / "cache") == first
    (package / "model.bin").write_bytes(b"other")
    second = registry.resolve(ref, tmp_path / "cache")
    assert second.digest == compute_seal(package).digest != first.digest
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == sorted(
        [first.digest, second.digest]
    )
    with pytest.raises(ModelNotFoundError, match=r"set artifacts\.uri"):
        Registry(models, artifacts).resolve(ref, tmp_path / "cache")


def test_an_alias_resolves_to_one_verified_package(
    registry: Registry, package: Path, tmp_path: Path
) -> None:
    version = registry.register(package, FLIGHTS, alias=CHAMPION)
    pinned = registry.resolve(parse_model_uri("models:/flight-delay@champion"), tmp_path / "cache")
    assert (pinned.name, pinned.version, pinned.digest) == ("flight-delay", 1, version.digest)
    assert pinned.uri == "models:/flight-delay/1"
    assert pinned.folder == tmp_path / "cache" / version.digest
    assert pinned.package.folder == pinned.folder
    assert (pinned.folder / "model.bin").read_bytes() == b"model"


def test_a_pinned_model_does_not_follow_its_alias(
    registry: Registry, package: Path, tmp_path: Path
) -> None:
    registry.register(package, FLIGHTS, alias=CHAMPION)
    pinned = registry.resolve(parse_model_uri("models:/flight-delay@champion"), tmp_path / "cache")
    registry.register(_package(tmp_path / "other", b"other"), FLIGHTS, alias=CHAMPION)
    assert (pinned.folder / "model.bin").read_bytes() == b"model"


def test_latest_is_the_highest_ready_version(
    registry: Registry, models: MemoryModelStore, package: Path, tmp_path: Path
) -> None:
    registry.register(package, FLIGHTS)
    models.create_version(FLIGHTS, source="s")
    pinned = registry.resolve(parse_model_uri("models:/flight-delay/latest"), tmp_path / "cache")
    assert pinned.version == 1


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/flight-delays/1", "did you mean 'flight-delay'"),
        ("models:/flight-delay/9", "it has 2, 1"),
        ("models:/flight-delay@challenger", "no alias 'challenger'"),
        ("models:/flight-delay/2", "PENDING_REGISTRATION"),
        ("models:/empty/latest", "no READY version"),
        ("no/such/folder", "no package folder 'no/such/folder'"),
    ],
)
def test_what_is_not_there_or_not_ready_is_not_found(
    registry: Registry,
    models: MemoryModelStore,
    package: Path,
    tmp_path: Path,
    uri: str,
    said: str,
) -> None:
    registry.register(package, FLIGHTS)
    models.create_version(FLIGHTS, source="s")
    models.create_model(ModelName("empty"))
    with pytest.raises(ModelNotFoundError, match=said):
        registry.resolve(parse_model_uri(uri), tmp_path / "cache")


def test_a_cached_copy_is_used_again_without_the_artifact_store(
    models: MemoryModelStore, artifacts: LocalArtifactStore, package: Path, tmp_path: Path
) -> None:
    Registry(models, artifacts).register(package, FLIGHTS)
    ref = parse_model_uri("models:/flight-delay/1")
    first = Registry(models, artifacts).resolve(ref, tmp_path / "cache")
    down = failing(artifacts, Fault(is_down=True))
    assert Registry(models, down).resolve(ref, tmp_path / "cache") == first


def test_a_version_without_a_digest_is_pinned_as_it_is_fetched(
    models: MemoryModelStore, artifacts: LocalArtifactStore, package: Path, tmp_path: Path
) -> None:
    registry = Registry(models, artifacts)
    artifacts.put(package, ArtifactPath("0/models/m-1/artifacts"))
    models.create_model(FLIGHTS)
    source = f"{artifacts.root_uri}/0/models/m-1/artifacts"
    models.create_version(FLIGHTS, source=source)
    models.finish_version(FLIGHTS, 1, VersionStatus.READY)
    ref = parse_model_uri("models:/flight-delay/1")
    first = registry.resolve(ref, tmp_path / "cache")
    assert (first.is_verified, first.version) == (False, 1)
    assert (first.digest, first.uri) == (
        compute_seal(first.folder).digest,
        "models:/flight-delay/1",
    )
    assert first.folder.parent == tmp_path / "cache"
    artifacts.put(package / "model.bin", ArtifactPath("0/models/m-1/artifacts/other.bin"))
    second = registry.resolve(ref, tmp_path / "cache")
    assert second.digest != first.digest
    assert [path.name for path in (tmp_path / "cache").glob(".*")] == []


def test_a_damaged_copy_in_the_cache_is_replaced(
    registry: Registry, package: Path, tmp_path: Path
) -> None:
    registry.register(package, FLIGHTS)
    ref = parse_model_uri("models:/flight-delay/1")
    first = registry.resolve(ref, tmp_path / "cache")
    (first.folder / "model.bin").write_bytes(b"mOdel")
    second = registry.resolve(ref, tmp_path / "cache")
    assert (second.folder / "model.bin").read_bytes() == b"model"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.digest]


@pytest.mark.parametrize("resealed", [False, True])
def test_stored_bytes_that_changed_are_refused(
    registry: Registry,
    artifacts: LocalArtifactStore,
    package: Path,
    tmp_path: Path,
    resealed: bool,
) -> None:
    version = registry.register(package, FLIGHTS)
    (stored,) = (tmp_path / "artifacts" / "models" / "flight-delay").iterdir()
    assert stored.as_uri() == version.source
    (stored / "model.bin").write_bytes(b"mOdel")
    if resealed:
        seal(stored)
    with pytest.raises(PackageDigestError):
        registry.resolve(parse_model_uri("models:/flight-delay/1"), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert artifacts.root_uri in version.source


def test_lost_bytes_are_not_found(
    registry: Registry, artifacts: LocalArtifactStore, package: Path, tmp_path: Path
) -> None:
    registry.register(package, FLIGHTS)
    artifacts.delete(ArtifactPath("models"))
    with pytest.raises(ModelNotFoundError, match="are gone from"):
        registry.resolve(parse_model_uri("models:/flight-delay/1"), tmp_path / "cache")


def test_a_version_of_another_artifact_store_is_not_found(
    registry: Registry, models: MemoryModelStore, package: Path, tmp_path: Path
) -> None:
    registry.register(package, FLIGHTS)
    elsewhere = Registry(models, LocalArtifactStore(tmp_path / "elsewhere"))
    with pytest.raises(ModelNotFoundError, match=r"artifacts\.uri"):
        elsewhere.resolve(parse_model_uri("models:/flight-delay/1"), tmp_path / "cache")


@pytest.mark.parametrize("is_sealed", [False, True])
def test_a_folder_resolves_to_a_copy_and_stays_as_it_is(
    registry: Registry, package: Path, tmp_path: Path, is_sealed: bool
) -> None:
    if is_sealed:
        seal(package)
    before = sorted(path.name for path in package.iterdir())
    pinned = registry.resolve(parse_model_uri(str(package)), tmp_path / "cache")
    again = registry.resolve(parse_model_uri(package.as_uri()), tmp_path / "cache")
    assert pinned == again
    assert (pinned.name, pinned.version, pinned.uri) == ("package", None, package.as_uri())
    assert pinned.digest == compute_seal(package).digest
    assert (pinned.folder / "model.bin").read_bytes() == b"model"
    assert sorted(path.name for path in package.iterdir()) == before


@pytest.mark.parametrize("is_registered", [False, True])
def test_copy_from_before_gets_the_signatures_of_its_package(
    registry: Registry, package: Path, tmp_path: Path, is_registered: bool
) -> None:
    seal(package)
    uri = str(package)
    if is_registered:
        uri = f"models:/{registry.register(package, FLIGHTS).name}/1"
    ref, cache = parse_model_uri(uri), tmp_path / "cache"
    assert signers(registry.resolve(ref, cache).folder) == ()
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    digest, key = registry.sign(ref, tmp_path / "key.pem")
    pinned = registry.resolve(ref, cache)
    assert signers(pinned.folder) == (key,)
    assert pinned.digest == digest


def test_a_changed_sealed_folder_is_refused(
    registry: Registry, package: Path, tmp_path: Path
) -> None:
    seal(package)
    (package / "model.bin").write_bytes(b"mOdel")
    with pytest.raises(PackageDigestError):
        registry.resolve(parse_model_uri(str(package)), tmp_path / "cache")


@pytest.mark.parametrize(
    "name", ["..", ".hidden", "a b", "a_b", "flüge\\x", "%2e%2e", "x" * 500, "ü" * 500, "a~b"]
)
def test_every_model_name_has_a_folder_of_its_own(
    registry: Registry, models: MemoryModelStore, package: Path, tmp_path: Path, name: str
) -> None:
    registry.register(package, parse_model_name("plain"))
    version = registry.register(package, parse_model_name(name))
    assert registry.resolve(parse_model_uri(f"models:/{name}/1"), tmp_path / "cache").version == 1
    assert (
        len({found.source for found in (version, models.get_version(ModelName("plain"), 1))}) == 2
    )
    assert len(list((tmp_path / "artifacts" / "models").iterdir())) == 2


def test_versions_are_listed_and_aliases_set_on_ready_ones_only(
    registry: Registry, models: MemoryModelStore, package: Path
) -> None:
    registry.register(package, FLIGHTS)
    models.create_version(FLIGHTS, source="s")
    assert [version.version for version in registry.versions(FLIGHTS)] == [2, 1]
    registry.set_alias(FLIGHTS, CHAMPION, 1)
    with pytest.raises(InvalidStateError):
        registry.set_alias(FLIGHTS, CHAMPION, 2)
    assert [model.aliases for model in registry.list_models()] == [{"champion": 1}]


def test_jobs_that_resolve_at_once_share_one_good_copy(
    registry: Registry, package: Path, tmp_path: Path
) -> None:
    registry.register(package, FLIGHTS)
    ref = parse_model_uri("models:/flight-delay/1")
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(registry.resolve, ref, tmp_path / "cache") for _ in range(8)]
        digests = {job.result().digest for job in jobs}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == list(digests)
    assert (tmp_path / "cache" / digests.pop() / "model.bin").read_bytes() == b"model"


def test_a_name_that_no_store_can_keep_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="model name"):
        parse_model_name("half \ud800")
