"""Register packages as verified versions, move aliases, and resolve a reference to one package."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sparkscore.errors import (
    InvalidNameError,
    ModelNotFoundError,
    PackageDigestError,
    PackageFormatError,
    RecordExistsError,
    RecordNotFoundError,
    StoreUnavailableError,
    shown,
)
from sparkscore.names import (
    AliasName,
    AliasRef,
    ArtifactPath,
    LatestRef,
    ModelName,
    ModelRef,
    PathRef,
    VersionRef,
    parse_artifact_path,
)
from sparkscore.package import Package, compute_seal, copy_sealed, open_package, verify
from sparkscore.package.manifest import SIGNING, read_seal, seal
from sparkscore.package.signing import sign_package
from sparkscore.records import ModelVersion, RegisteredModel, VersionStatus
from sparkscore.stores.base import ArtifactStore
from sparkscore.stores.models_base import ModelStore

_UNSAFE = re.compile(r"[^A-Za-z0-9_.\-]")
_MAX_FOLDER_CHARS = 120
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_MESSAGE_CHARS = 500


@dataclass(frozen=True)
class PinnedModel:
    """One package, fixed by its digest: whatever moves later, this is what gets scored.

    `version` is None for a package that was named by its path; `folder` holds a verified copy.
    The digest of one that is not `is_verified` is that of the bytes as they were fetched: nobody
    registered it, so that they may be others than those that were meant.
    """

    name: str
    version: int | None
    digest: str
    uri: str
    folder: Path
    package: Package
    is_verified: bool = True


class Registry:
    """Model versions: records in `models`, bytes in `artifacts`.

    Args:
        models: Where versions are recorded.
        artifacts: Where packages are put.
        open_at: Opens the place of a version that was put elsewhere; None: there are no such.
    """

    def __init__(
        self,
        models: ModelStore,
        artifacts: ArtifactStore,
        open_at: Callable[[str], ArtifactStore] | None = None,
    ) -> None:
        self._models = models
        self._artifacts = artifacts
        self._open_at = open_at

    def register(
        self,
        folder: Path,
        name: ModelName,
        *,
        alias: AliasName | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        run_id: str = "",
        kept_at: str | None = None,
    ) -> ModelVersion:
        """The package in `folder` as a new READY version, after its stored bytes were read back.

        The model is created if there is none. A failure on the way leaves the version
        FAILED_REGISTRATION with the reason and the alias where it was.

        Args:
            folder: The package.
            name: The model.
            alias: Points at the version once it is READY.
            description: What this version is.
            tags: Of the version.
            run_id: The run that made the package.
            kept_at: URI where its files lie already, such as in that run; None: they are copied.

        Raises:
            PackageFormatError: The folder is no package; nothing was registered.
            PackageDigestError: The bytes are not the sealed ones, here or as they were stored.
            StoreUnavailableError: A store did not answer.
        """
        with tempfile.TemporaryDirectory() as staging:
            sealed = Path(staging) / "package"
            open_package(folder)
            digest = copy_sealed(folder, sealed).digest
            self._ensure_model(name)
            # Named before the version has its number: MLflow's server never changes a source.
            place = parse_artifact_path(f"{folder_of(name)}/{digest[:16]}-{uuid.uuid4().hex[:8]}")
            source = kept_at or f"{self._artifacts.root_uri}/{place}"
            pending = self._models.create_version(
                name, source=source, run_id=run_id, description=description, tags=tags
            )
            with self._marked_failed(pending):
                if kept_at is None:
                    self._artifacts.put(sealed, place)
                self._check_stored(source, digest, Path(staging) / "stored")
                ready = self._models.finish_version(
                    name, pending.version, VersionStatus.READY, digest=digest
                )
        if alias is None:
            return ready
        self._models.set_alias(name, alias, ready.version)
        return self._models.get_version(name, ready.version)

    def current(self, ref: AliasRef | VersionRef | LatestRef) -> ModelVersion:
        """The READY version that `ref` means now; no file is read.

        Raises:
            ModelNotFoundError: There is no such model, version, alias or READY version.
            StoreUnavailableError: The store did not answer.
        """
        return self._found(ref)

    def resolve(self, ref: ModelRef, into: Path) -> PinnedModel:
        """The package that `ref` means now, as a verified copy in `into/<digest>`.

        An alias is read once. A copy that is there from before is used if it still verifies, and
        replaced if not. A version that was registered without a digest, as MLflow's clients do
        it, is fetched each time, and sealed as it comes.

        Raises:
            ModelNotFoundError: There is no such model, version, alias or READY version.
            PackageDigestError: The stored bytes are not the ones that were registered.
            PackageFormatError: They are no package.
            StoreUnavailableError: A store did not answer.
        """
        if isinstance(ref, PathRef):
            return _pinned_path(ref.path, into)
        version = self._found(ref)
        if not version.digest:
            return self._pinned_as_fetched(version, into)
        folder = into / version.digest
        if not _is_intact(folder, version.digest):
            self._fetch(version, folder)
        else:
            self._fetch_signatures(version, folder)
        uri = f"models:/{version.name}/{version.version}"
        package = open_package(folder)
        return PinnedModel(version.name, version.version, version.digest, uri, folder, package)

    def sign(self, ref: ModelRef, key_file: Path) -> tuple[str, str]:
        """Sign a model's verified bytes where they lie; returns the digest and the public key.

        Raises:
            ModelNotFoundError: There is no such model, version, alias or READY version.
            PackageDigestError: The bytes are not the sealed ones.
            PackageFormatError: A folder has no seal.
            UsageError: The file holds no private key of Ed25519.
            StoreUnavailableError: A store did not answer.
        """
        if isinstance(ref, PathRef):
            key = sign_package(ref.path, key_file)
            return verify(ref.path).digest, key
        version = self._found(ref)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "package"
            self._fetch(version, folder)
            key = sign_package(folder, key_file)
            store, place = self._opened(version.source)
            store.put(folder / SIGNING, _signing_at(place))
        return version.digest, key

    def list_models(self) -> Sequence[RegisteredModel]:
        """All registered models by name."""
        return self._models.list_models()

    def get_model(self, name: ModelName) -> RegisteredModel:
        """The registered model of this name.

        Raises:
            RecordNotFoundError: There is none.
        """
        return self._models.get_model(name)

    def versions(self, name: ModelName) -> Sequence[ModelVersion]:
        """All versions of a model, highest number first.

        Raises:
            RecordNotFoundError: There is no such model.
        """
        return self._models.list_versions(name)

    def set_alias(self, name: ModelName, alias: AliasName, version: int) -> None:
        """Point an alias at a READY version, away from any other.

        Raises:
            RecordNotFoundError: There is no such model or version.
            InvalidStateError: The version is not READY.
        """
        self._models.set_alias(name, alias, version)

    def set_version_tags(self, name: ModelName, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version; others stay as they are.

        Raises:
            RecordNotFoundError: There is no such model or version.
        """
        self._models.set_version_tags(name, version, tags)

    def _ensure_model(self, name: ModelName) -> None:
        # Asked for first: to create is a write, and nearly always in vain.
        try:
            self._models.get_model(name)
        except RecordNotFoundError:
            with suppress(RecordExistsError):
                self._models.create_model(name)

    @contextmanager
    def _marked_failed(self, pending: ModelVersion) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            # Everything, Ctrl-C too: a version must not stay pending when nobody works on it.
            with suppress(StoreUnavailableError):
                self._models.finish_version(
                    ModelName(pending.name),
                    pending.version,
                    VersionStatus.FAILED_REGISTRATION,
                    message=(str(exc) or type(exc).__name__)[:_MAX_MESSAGE_CHARS],
                )
            raise

    def _check_stored(self, source: str, digest: str, local: Path) -> None:
        store, place = self._opened(source)
        stored = _sealed(store.get(place, local))
        if stored != digest:
            raise PackageDigestError(
                f"the artifact store {store.root_uri} returned {place!r} with digest "
                f"{stored}, but {digest} was stored: register again"
            )

    def _found(self, ref: ModelRef) -> ModelVersion:
        try:
            version = self._version(ref)
        except RecordNotFoundError as exc:
            raise ModelNotFoundError(str(exc)) from exc
        if version.status is not VersionStatus.READY:
            why = f" ({version.status_message})" if version.status_message else ""
            raise ModelNotFoundError(
                f"version {version.version} of model {version.name!r} is {version.status}{why}, "
                "not READY: choose another version, or register the package again"
            )
        if version.digest and not _DIGEST.fullmatch(version.digest):
            raise PackageDigestError(
                f"version {version.version} of model {version.name!r} has the digest "
                f"{shown(version.digest)}, which is no sha256: register the package again"
            )
        return version

    def _version(self, ref: ModelRef) -> ModelVersion:
        assert not isinstance(ref, PathRef)
        if isinstance(ref, VersionRef):
            return self._models.get_version(ref.name, ref.version)
        if isinstance(ref, AliasRef):
            return self._models.get_version_by_alias(ref.name, ref.alias)
        for version in self._models.list_versions(ref.name):
            if version.status is VersionStatus.READY:
                return version
        raise ModelNotFoundError(f"model {ref.name!r} has no READY version: register one")

    def _fetch_signatures(self, version: ModelVersion, folder: Path) -> None:
        """Bring the signatures of a copy from before to what they are now."""
        fresh = folder.with_name(f".{uuid.uuid4().hex}")
        try:
            store, place = self._opened(version.source)
            store.get(_signing_at(place), fresh).replace(folder / SIGNING)
        except RecordNotFoundError:
            (folder / SIGNING).unlink(missing_ok=True)
        except (InvalidNameError, StoreUnavailableError):
            return  # The copy does without the store, and a signature is right or wrong by itself.

    def _pinned_as_fetched(self, version: ModelVersion, into: Path) -> PinnedModel:
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=into, prefix=".") as staging:
            fetched = Path(staging) / "package"
            self._copied(version, fetched)
            found = _pinned_path(fetched, into)
        uri = f"models:/{version.name}/{version.version}"
        return PinnedModel(
            version.name,
            version.version,
            found.digest,
            uri,
            found.folder,
            found.package,
            is_verified=False,
        )

    def _fetch(self, version: ModelVersion, folder: Path) -> None:
        with _staged(folder) as staged:
            found = self._copied(version, staged)
            if found != version.digest:
                raise PackageDigestError(
                    f"{_what(version)} at {version.source} has digest {found}, but "
                    f"{version.digest} was registered: restore the package, or register it again"
                )

    def _copied(self, version: ModelVersion, local: Path) -> str:
        """The digest of a version's stored bytes, which then are at `local`, sealed."""
        try:
            store, place = self._opened(version.source)
            return _sealed(store.get(place, local))
        except RecordNotFoundError as exc:
            raise ModelNotFoundError(
                f"the bytes of {_what(version)} are gone from {version.source}: "
                "choose another version, or register the package again"
            ) from exc
        except InvalidNameError as exc:
            raise ModelNotFoundError(
                f"{_what(version)} lies at {shown(version.source)}, which cannot be opened here: "
                f"{exc}"
            ) from exc

    def _opened(self, source: str) -> tuple[ArtifactStore, ArtifactPath]:
        """The store that a version's bytes are in, and where in it."""
        root, separator, place = source.partition(f"{self._artifacts.root_uri}/")
        if not root and separator:
            return self._artifacts, parse_artifact_path(place)
        if self._open_at is None:
            raise InvalidNameError(
                f"it is not below the artifact store {self._artifacts.root_uri}: set artifacts.uri "
                "to the store that it was registered in"
            )
        return self._open_at(source), ArtifactPath("")


def _signing_at(place: ArtifactPath) -> ArtifactPath:
    """Where the signatures of the package at `place` lie."""
    return parse_artifact_path(f"{place}/{SIGNING}" if place else SIGNING)


def _what(version: ModelVersion) -> str:
    return f"version {version.version} of model {version.name!r}"


def _sealed(folder: Path) -> str:
    """The digest of a package, verified if it is sealed, else sealed now."""
    return (seal(folder) if read_seal(folder) is None else verify(folder)).digest


def folder_of(name: ModelName) -> str:
    """Where a model's versions lie; a name that is no plain file name gets its hash added.

    `~` stands in no plain name, so that no two models share a folder.
    """
    plain = _UNSAFE.sub("_", name)
    if plain != name or name.startswith(".") or len(name) > _MAX_FOLDER_CHARS:
        plain = (
            f"{plain[:_MAX_FOLDER_CHARS].lstrip('.')}~{hashlib.sha256(name.encode()).hexdigest()}"
        )
    return f"models/{plain}"


def _pinned_path(path: Path, into: Path) -> PinnedModel:
    if not path.is_dir():
        raise ModelNotFoundError(
            f"there is no package folder {str(path)!r}: give the folder that holds MLmodel, "
            "or models:/NAME/VERSION"
        )
    digest = (verify(path) if read_seal(path) else compute_seal(path)).digest
    folder = into / digest
    if not _is_intact(folder, digest):
        open_package(path)  # So that what is wrong is said of the folder that was named.
        with _staged(folder) as staged:
            found = copy_sealed(path, staged).digest
            if found != digest:
                raise PackageDigestError(
                    f"the package {str(path)!r} changed while it was read: try again when "
                    "nothing writes to it"
                )
    _copy_signatures(path, folder)
    name = path.resolve().name
    return PinnedModel(name, None, digest, path.resolve().as_uri(), folder, open_package(folder))


def _copy_signatures(path: Path, folder: Path) -> None:
    """Bring the signatures of a copy from before to what they are now."""
    if not (path / SIGNING).is_file():
        (folder / SIGNING).unlink(missing_ok=True)
        return
    fresh = folder.with_name(f".{uuid.uuid4().hex}")
    shutil.copyfile(path / SIGNING, fresh)
    fresh.replace(folder / SIGNING)


def _is_intact(folder: Path, digest: str) -> bool:
    if not folder.is_dir():
        return False
    try:
        return verify(folder).digest == digest
    except (PackageDigestError, PackageFormatError):
        return False


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A path beside `folder` that takes its place once the block has filled it."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    staged = folder.with_name(f".{uuid.uuid4().hex}")
    replaced = folder.with_name(f"{staged.name}-replaced")
    try:
        yield staged
        try:
            staged.rename(folder)
        except OSError:
            # Something is there. Another process's good copy may be in use and stays.
            if not _is_intact(folder, folder.name):
                folder.rename(replaced)
                staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
