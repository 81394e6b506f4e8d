"""How a package gets to a node once, and a model into a Python worker once.

The driver packs the folder; a node unpacks it into a folder named by the digest, under a lock;
a worker verifies the bytes there before it loads them, and keeps the predictor for later tasks.
Imported by Python workers: no Spark here, and no room of ours beyond package and flavors.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sparkscore.errors import ModelTooLargeError, is_out_of_memory, shown
from sparkscore.flavors import load_predictor
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.package import open_package
from sparkscore.package.node_packages import HeldPackage, hold_package
from sparkscore.package.trust import TrustPolicy

if TYPE_CHECKING:
    from sparkscore.spark.worker import ShippedEnvironment

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_ARTIFACTS = "artifacts"
"""Files in this folder of a package are the model's own affair: it may map them, or read a part."""


@dataclass(frozen=True)
class NodeLimits:
    """What may be kept for later tasks; what is in use is kept beyond it.

    Attributes:
        max_loaded_bytes: Memory of all models of one process.
        max_unpacked_bytes: Disk of all packages of one node.
    """

    max_loaded_bytes: int = 4 * 2**30
    max_unpacked_bytes: int = 16 * 2**30


@dataclass
class LoadedModel:
    """A predictor in this process.

    Attributes:
        n_loads: How often the process has loaded it.
        n_bytes: What it takes in memory: its package, or by how much the process grew if more.
        package: Its files, held while it is kept.
        max_bytes: How large its batches may be, as memory has shown; None: no batch was too large.
    """

    predictor: LoadedPredictor
    n_loads: int
    n_bytes: int
    package: HeldPackage
    max_bytes: int | None = None


_loaded: OrderedDict[tuple[str, TrustPolicy, TreeRuntime, str, str], LoadedModel] = OrderedDict()
"""Least recently used first; Spark reuses its workers (`spark.python.worker.reuse`)."""

_n_loads: Counter[str] = Counter()
"""Loads of each digest in this process; more than one would mean that the cache failed."""

_unfrozen: set[str] = set()
"""Digests that were loaded since the collector was told to pass by what is there."""


def loaded_model(
    digest: str,
    trust: TrustPolicy,
    open_packed: Callable[[], BinaryIO],
    tree_runtime: TreeRuntime = TreeRuntime.AUTO,
    limits: NodeLimits = NodeLimits(),
    environment: ShippedEnvironment | None = None,
    predict: str | None = None,
) -> tuple[LoadedModel, float]:
    """The model of this digest in this process, and the seconds that loading took just now.

    Models that were not used for longest are let go of where they and this one exceed the limit.

    Args:
        digest: Package digest that the driver pinned.
        trust: What loading may run.
        open_packed: Opens the packed folder; called only if the node does not have it.
        tree_runtime: Whether compiled trees may score in the place of the model's library.
        limits: What this process and this node may keep.
        environment: Where the model lives; None: in this process.
        predict: The function to ask; None: the packaged one.

    Raises:
        PackageDigestError: The bytes on this node are not the pinned ones, and could not be
            replaced by them.
        ModelTooLargeError: The model does not fit into this process's memory.
        ModelError: The package cannot be loaded here.
    """
    place = "" if environment is None else environment.key
    key = (digest, trust, tree_runtime, place, predict or "")
    known = _loaded.get(key)
    if known is not None:
        _loaded.move_to_end(key)
        return known, 0.0
    started = time.perf_counter()
    try:
        model = _load(digest, trust, open_packed, tree_runtime, limits, environment, predict)
    except ModelTooLargeError:
        raise
    except Exception as exc:  # loading runs foreign code: it may raise anything
        if not is_out_of_memory(exc):
            raise
        raise ModelTooLargeError(_too_large_text(digest, shown(str(exc)))) from exc
    _loaded[key] = model
    _unfrozen.add(digest)
    _keep_within(limits.max_loaded_bytes, n_kept=1)
    return model, time.perf_counter() - started


def freeze_loaded() -> None:
    """Have Python's garbage collector pass by models and libraries, if any were loaded just now.

    Spark's daemon has each worker collect after each task, which takes 0.13 s with a model's
    libraries there. What was loaded stays as long as it is used, and cycles among it are found
    again when a model is let go of.
    """
    if _unfrozen:
        _unfrozen.clear()
        gc.collect()
        gc.freeze()


def loaded_digests() -> frozenset[str]:
    """Of which packages this process has a model."""
    return frozenset(digest for digest, *_ in _loaded)


def _load(
    digest: str,
    trust: TrustPolicy,
    open_packed: Callable[[], BinaryIO],
    tree_runtime: TreeRuntime,
    limits: NodeLimits,
    environment: ShippedEnvironment | None,
    predict: str | None,
) -> LoadedModel:
    package = hold_package(digest, open_packed, limits.max_unpacked_bytes)
    try:
        _check_fits(package, digest)
        # Before it is loaded, so that old and new need not fit side by side.
        _keep_within(limits.max_loaded_bytes - package.n_bytes)
        before = _resident_bytes()
        opened = open_package(package.folder)
        if environment is None:
            predictor = load_predictor(opened, trust, tree_runtime, predict)
        else:
            from sparkscore.environments.remote import load_remotely

            predictor = load_remotely(*environment.open(), opened, trust, tree_runtime, predict)
        n_bytes = max(package.n_bytes, _resident_bytes() - before)
    except BaseException:
        package.release()
        raise
    _n_loads[digest] += 1
    return LoadedModel(predictor, _n_loads[digest], n_bytes, package)


def _keep_within(max_bytes: int, n_kept: int = 0) -> None:
    """Let go of models until the rest fits, the `n_kept` most recently used excepted."""
    n_before = len(_loaded)
    while len(_loaded) > n_kept and sum(m.n_bytes for m in _loaded.values()) > max_bytes:
        _, model = _loaded.popitem(last=False)
        model.package.release()
    if len(_loaded) < n_before:
        gc.unfreeze()
        gc.collect()  # Models hold on to themselves by cycles.


def _check_fits(package: HeldPackage, digest: str) -> None:
    """Refuse what is larger than all memory, before the kernel ends the worker without a word."""
    artifacts = package.folder / _ARTIFACTS
    inside = (path for path in package.folder.rglob("*") if artifacts not in path.parents)
    n_bytes = sum(path.stat().st_size for path in inside if path.is_file())
    if n_bytes > _memory_bytes():
        raise ModelTooLargeError(_too_large_text(digest, f"its files have {n_bytes} bytes"))


def _memory_bytes() -> int:
    """The most memory that this process can ever have."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    for path in _CGROUP_LIMITS:
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def _resident_bytes() -> int:
    """Memory of this process now; 0 where the system has no /proc."""
    try:
        n_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return n_pages * os.sysconf("SC_PAGE_SIZE")


def _too_large_text(digest: str, found: str) -> str:
    return (
        f"the model of package {digest} does not fit into the {_memory_bytes()} bytes of memory "
        f"that a Python worker can have here: {found}; give it more "
        "(spark.executor.pyspark.memory, or fewer slots a node), or take a smaller model"
    )
