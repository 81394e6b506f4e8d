"""The one gate from a package's bytes to objects: what may be loaded, and by whose word.

Only the operator's policy opens it. A list of trusted types inside a package is never read.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import pickletools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from sparkscore.errors import (
    MissingExtraError,
    PackageFormatError,
    SparkscoreError,
    UntrustedCodeError,
    listed,
    shown,
)
from sparkscore.extras import missing_extra
from sparkscore.package.manifest import read_seal

# Classes of these libraries hold numbers and settings: restoring one runs the library's code,
# never the package's. Functions are another matter (a FunctionTransformer around numpy.save
# writes files), so only the modules of pure ones are named.
_KNOWN_CLASSES = (
    "sklearn.",
    "scipy.sparse.",
    "scipy.interpolate.",
    "scipy.stats.",
    "numpy.dtype",
    "numpy.random.",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.",
    "xgboost.core.Booster",
    "xgboost.sklearn.",
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
)
_KNOWN_FUNCTIONS = ("sklearn.metrics.", "sklearn.feature_selection.")
_NEVER = ("sklearn.datasets.", "sklearn.externals.")
_LAYERS = "torch.nn.modules."
_ACTIVATIONS = ("torch.nn.functional.relu", "torch._C._nn.gelu")
"""Functions that layers keep as values."""
_DECOMPRESS = {"lzma": lzma.decompress, "bzip2": bz2.decompress, "gzip": gzip.decompress}


@dataclass(frozen=True)
class TrustPolicy:
    """What the operator allows a package to load.

    Attributes:
        allow_code: Whether code that a package brings is run at all: pickles, which can run any,
            scripts, modules.
        types: Further type names, or `prefix.*`, that skops files may hold.
        digests: Packages whose code is run although `allow_code` is not set, by their digests.
        require_signature: Whether a package must be signed by one of `signing_keys`.
        signing_keys: Public keys in hex, of those whose packages are loaded.
        signatures: Public key and signature of the package at hand, beside those in its folder.
    """

    allow_code: bool = False
    types: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    require_signature: bool = False
    signing_keys: tuple[str, ...] = ()
    signatures: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The policy that was turned into plain values by `dataclasses.asdict`, JSON between."""
        tuples = {key: tuple(value) for key, value in plain.items() if isinstance(value, list)}
        signatures = tuple((key, value) for key, value in plain["signatures"])
        return cls(**{**plain, **tuples, "signatures": signatures})

    def for_package(self, folder: Path) -> TrustPolicy:
        """This policy, with code allowed if the package's digest is one of `digests`.

        Args:
            folder: The package, whose bytes were compared with its seal before.
        """
        if self.allow_code or not self.digests:
            return self
        sealed = read_seal(folder)
        is_named = sealed is not None and sealed.digest in self.digests
        return replace(self, allow_code=is_named)

    def allows(self, type_name: str) -> bool:
        """Whether the operator named the type, or a prefix of it, in `types`."""
        return any(
            type_name == entry or (entry.endswith(".*") and type_name.startswith(entry[:-1]))
            for entry in self.types
        )


def load_skops(path: Path, trust: TrustPolicy) -> object:
    """The object in a skops file, if all of its types are known or allowed by `trust`.

    Raises:
        UntrustedCodeError: It holds other types; lists them and the setting that allows them.
        PackageFormatError: The file is no skops file.
        MissingExtraError: skops or a library of the types is not installed.
    """
    try:
        import skops.io
    except ImportError as exc:
        raise MissingExtraError(
            f"loading {path.name} needs skops; run: pip install 'sparkscore[sklearn]'"
        ) from exc
    data = _read(path)
    try:
        asked = skops.io.get_untrusted_types(data=data)
        _admit(asked, path, trust)
        loaded: object = skops.io.loads(data, trusted=asked)
    except UntrustedCodeError:
        raise
    except ModuleNotFoundError as exc:
        raise _missing(path, exc) from exc
    except Exception as exc:  # skops reads bytes of unknown making: whatever it raises means this
        raise PackageFormatError(f"{path} is no readable skops file: {exc}") from exc
    return loaded


def load_cloudpickle(path: Path, trust: TrustPolicy, compression: str | None = None) -> object:
    """The object in a pickle file, plain or of cloudpickle, if `trust` allows pickles.

    Args:
        path: The file.
        trust: The operator's policy.
        compression: `lzma`, `bzip2`, `gzip` or None, as MLmodel names it.

    Raises:
        UntrustedCodeError: Pickles are not allowed; lists what the file asks for.
        PackageFormatError: The file is no whole pickle.
        MissingExtraError: A library that it needs is not installed.
    """
    if compression not in (None, *_DECOMPRESS):
        raise PackageFormatError(
            f"{path}: compression {shown(compression)} is unknown; known are {listed(_DECOMPRESS)}"
        )
    data = _read(path)
    if not trust.allow_code:
        asked = "" if compression else f"; it asks for {listed(_globals(data))}"
        admit_code(f"{path} is a pickle{asked}; loading it runs what it says", trust)
    import cloudpickle

    try:
        loaded: object = cloudpickle.loads(
            data if compression is None else _DECOMPRESS[compression](data)
        )
    except ModuleNotFoundError as exc:
        raise _missing(path, exc) from exc
    except Exception as exc:  # unpickling runs foreign code: it may raise anything
        raise PackageFormatError(f"{path} cannot be unpickled: {exc!r}") from exc
    return loaded


def load_torch(path: Path, trust: TrustPolicy) -> object:
    """The object in a file of `torch.save`, its tensors in the memory of the CPU.

    Where `trust` allows no code, torch's restricted unpickler makes tensors, plain values, layers
    of torch.nn, and what `trust` names.

    Raises:
        UntrustedCodeError: It asks for more; lists it.
        PackageFormatError: With all trust, it cannot be unpickled.
        MissingExtraError: A library that it needs is not installed.
    """
    import torch

    if trust.allow_code:
        with running_code(path):
            whole: object = torch.load(path, map_location="cpu", weights_only=False)
        return whole
    try:
        asked = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as exc:  # bytes of unknown making: older forms, TorchScript, or none of these
        what = f"{path} is not in the form that torch reads with restrictions"
        raise _refusal(f"{what} ({shown(str(exc))})") from exc
    refused = [name for name in asked if not (trust.allows(name) or _is_of_torch(name))]
    if refused:
        raise _refusal(
            f"{path} is a pickle; beyond layers of torch.nn it asks for {listed(refused)} (the "
            "flag --trust allows types of libraries by their names); loading it runs what it says"
        )
    try:
        with torch.serialization.safe_globals([(_resolve(name), name) for name in asked]):
            restricted: object = torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as exc:
        raise _missing(path, exc) from exc
    except Exception as exc:  # as above
        what = f"{path} holds more than torch unpickles with restrictions"
        raise _refusal(f"{what} ({shown(str(exc))})") from exc
    return restricted


def admit_code(what: str, trust: TrustPolicy) -> None:
    """Refuse, before any of it is run, code of a package that the operator does not trust.

    Args:
        what: What would be run, and by what.
        trust: The operator's policy.

    Raises:
        UntrustedCodeError: Says how to allow it.
    """
    if not trust.allow_code:
        raise _refusal(what)


@contextmanager
def running_code(path: Path) -> Iterator[None]:
    """Around code of a package that is run while it is loaded: what it raises becomes one error.

    Args:
        path: The file whose code is run.

    Raises:
        PackageFormatError: The code does not parse, raised or ended the process.
        MissingExtraError: It needs a library that is not installed.
    """
    try:
        yield
    except (SparkscoreError, MemoryError):  # Whoever loads tells what does not fit.
        raise
    except ModuleNotFoundError as exc:
        raise _missing(path, exc) from exc
    except SyntaxError as exc:
        raise PackageFormatError(f"{exc.filename} line {exc.lineno}: {exc.msg}") from exc
    except (Exception, SystemExit) as exc:  # foreign code: it may raise anything
        raise PackageFormatError(f"{path} cannot be run: {exc!r}") from exc


def _refusal(what: str) -> UntrustedCodeError:
    return UntrustedCodeError(
        f"{what}, which can be any code. If you trust who made it, allow it by the setting "
        "trust.allow_code or the flag --trust-code, or this package alone by trust.digests"
    )


def _admit(type_names: Sequence[str], path: Path, trust: TrustPolicy) -> None:
    refused = [name for name in type_names if not (trust.allows(name) or _is_known(name))]
    if refused:
        raise UntrustedCodeError(
            f"{path} holds types that are not trusted: {listed(refused)}. If you know them, "
            f"allow them by the setting trust.types or the flag --trust {refused[0]}"
        )


def _is_known(type_name: str) -> bool:
    """Whether a name is a class of a known library, or one of its pure functions."""
    if type_name.startswith(_NEVER):
        return False
    is_function = _named_in(type_name, _KNOWN_FUNCTIONS)
    if not (is_function or _named_in(type_name, _KNOWN_CLASSES)):
        return False
    found = _resolve(type_name)
    # A module also holds what it imported: sklearn.x.os.system is no part of scikit-learn.
    library = type_name.partition(".")[0]
    is_own = str(getattr(found, "__module__", "")).partition(".")[0] == library
    return is_own and (is_function or isinstance(found, type))


def _is_of_torch(name: str) -> bool:
    """Whether a name is a layer of torch.nn, or a function that layers keep."""
    if name in _ACTIVATIONS:
        return True
    if not name.startswith(_LAYERS):
        return False
    import torch

    found = _resolve(name)
    # A module also holds what it imported.
    is_own = str(getattr(found, "__module__", "")).startswith(_LAYERS)
    return is_own and isinstance(found, type) and issubclass(found, torch.nn.Module)


def _named_in(type_name: str, entries: tuple[str, ...]) -> bool:
    return any(
        type_name.startswith(entry) if entry.endswith(".") else type_name == entry
        for entry in entries
    )


def _resolve(type_name: str) -> object:
    """What a name of a known library stands for; None if it stands for nothing.

    Raises:
        ModuleNotFoundError: The library is not installed.
    """
    module, _, name = type_name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as exc:
        if exc.name == module.split(".")[0]:
            raise
        return None


def _missing(path: Path, exc: ModuleNotFoundError) -> MissingExtraError:
    name = (exc.name or "").split(".")[0]
    # The index may have another's library by the name of a module that is the model's own.
    return missing_extra(exc, f"loading {path}") or MissingExtraError(
        f"loading {path} needs {name!r}, which is not installed; install the library that brings "
        "it, or package the model again together with that module (code_paths)"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise PackageFormatError(f"{path} cannot be read: {exc.strerror}") from exc


def _globals(data: bytes) -> list[str]:
    """The names that a pickle would import, read without running it, as far as it is whole."""
    names: dict[str, None] = {}
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "GLOBAL":
                names[str(argument).replace(" ", ".")] = None
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                names[".".join(texts[-2:])] = None
            elif "UNICODE" in opcode.name:
                texts.append(str(argument))
    except ValueError:
        return [*names, "(the pickle is cut off or broken)"]
    return list(names)
