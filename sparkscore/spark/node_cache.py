"""How a package gets to a node once, and a model into a Python worker once.

The driver packs the folder; a node unpacks it into a folder named by the digest, under a lock;
a worker verifies the bytes there before it loads them, and keeps the predictor for later tasks.
Imported by Python workers: no Spark here, and no room of ours beyond package and flavors.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from sparkscore.errors import PackageDigestError, SparkscoreError
from sparkscore.flavors import load_predictor
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.package import open_package, unpack, verify
from sparkscore.package.node_folder import node_folder
from sparkscore.package.trust import TrustPolicy


@dataclass
class LoadedModel:
    """A predictor in this process.

    Attributes:
        n_loads: How often the process has loaded it.
        max_bytes: How large its batches may be, as memory has shown; None: no batch was too large.
    """

    predictor: LoadedPredictor
    n_loads: int
    max_bytes: int | None = None


_loaded: dict[tuple[str, TrustPolicy, TreeRuntime], LoadedModel] = {}
"""Kept for the life of the process: Spark reuses its workers (`spark.python.worker.reuse`)."""

_n_loads: Counter[str] = Counter()
"""Loads of each digest in this process; more than one would mean that the cache failed."""


def loaded_model(
    digest: str,
    trust: TrustPolicy,
    read_packed: Callable[[], bytes],
    tree_runtime: TreeRuntime = TreeRuntime.AUTO,
) -> tuple[LoadedModel, float]:
    """The model of this digest in this process, and the seconds that loading took just now.

    Args:
        digest: Package digest that the driver pinned.
        trust: What loading may run.
        read_packed: Gives the packed folder; called only if the node does not have it.
        tree_runtime: Whether compiled trees may score in the place of the model's library.

    Raises:
        PackageDigestError: The bytes on this node are not the pinned ones, and could not be
            replaced by them.
        ModelError: The package cannot be loaded here.
    """
    known = _loaded.get((digest, trust, tree_runtime))
    if known is not None:
        return known, 0.0
    started = time.perf_counter()
    folder = _verified_folder(digest, read_packed)
    predictor = load_predictor(open_package(folder), trust, tree_runtime)
    _n_loads[digest] += 1
    model = LoadedModel(predictor=predictor, n_loads=_n_loads[digest])
    _loaded[digest, trust, tree_runtime] = model
    return model, time.perf_counter() - started


def _verified_folder(digest: str, read_packed: Callable[[], bytes]) -> Path:
    root = node_folder()
    folder = root / digest
    with FileLock(root / f"{digest}.lock"):
        if not _is_intact(folder, digest):
            _unpack_into(folder, digest, read_packed())
    return folder


def _is_intact(folder: Path, digest: str) -> bool:
    try:
        return verify(folder).digest == digest
    except (SparkscoreError, OSError):
        return False


def _unpack_into(folder: Path, digest: str, packed: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpack-") as scratch:
        fresh = Path(scratch) / "package"
        try:
            unpack(packed, fresh)
            found = verify(fresh).digest
        except SparkscoreError as exc:
            raise PackageDigestError(_other_bytes_text(digest, str(exc))) from exc
        if found != digest:
            raise PackageDigestError(_other_bytes_text(digest, f"its digest is {found}"))
        if folder.is_dir():
            shutil.rmtree(folder)
        else:
            folder.unlink(missing_ok=True)
        fresh.rename(folder)


def _other_bytes_text(digest: str, found: str) -> str:
    return (
        f"the package that reached this node does not have the pinned digest {digest}: {found}; "
        "start the job again, and check the node's disk if it happens twice"
    )
