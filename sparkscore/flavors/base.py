"""What a flavor is: how one library's models are written into a package and become a Predictor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.signature import Signature
    from sparkscore.package.trust import TrustPolicy

FlavorConf = Mapping[str, object]
"""What MLmodel says under `flavors.<name>`; plain YAML values."""


class Predictor(Protocol):
    """A loaded model. One thread calls it at a time; it keeps no state between calls."""

    def predict(self, batch: pa.RecordBatch) -> object:
        """Predictions for every row of `batch`, in order.

        Args:
            batch: n_rows x the signature's input columns, in its order and with its Arrow
                types; null only where the column is optional or its type has a missing value
                (float, string, binary, datetime).

        Returns:
            n_rows predictions as the library gives them: an array of shape (n_rows,) or
            (n_rows, k), a pandas Series or DataFrame, an Arrow array, or a list.
        """
        ...


@runtime_checkable
class Compilable(Protocol):
    """A predictor whose steps or trees our own code may do instead of its library."""

    def compiled(self) -> Predictor:
        """A predictor that answers the same, to the bit, and takes the place of this one.

        Raises:
            NotCompiledError: Nothing of ours can serve the model; this one stays as it is.
        """
        ...


@dataclass(frozen=True)
class FittedModel:
    """The object that a predictor asks, and by which of its methods.

    Attributes:
        model: Of the library; whoever converts it has loaded it for that, and may change it.
        methods: `predict`, `predict_proba` or another; for several answers in their order.
    """

    model: object
    methods: tuple[str, ...] = ("predict",)


@runtime_checkable
class Convertible(Protocol):
    """A predictor whose model can be turned into one of another library."""

    def fitted(self) -> FittedModel:
        """What a converter starts from."""
        ...


@runtime_checkable
class Parametric(Protocol):
    """A predictor that may take params beside rows."""

    @property
    def takes_params(self) -> bool:
        """Whether the model's own predict takes them."""
        ...

    def with_params(self, params: Mapping[str, object]) -> Predictor:
        """This predictor, with `params` given to its model in each call.

        Raises:
            SignatureMismatchError: The model does not take params.
        """
        ...


@runtime_checkable
class Pickling(Protocol):
    """A flavor that writes a form without code, and a pickle for readers that know no other."""

    def save_pickled(self, model: object, folder: Path) -> SavedFlavor:
        """As `Flavor.save`, as a pickle, which is loaded only with trust.

        Raises:
            UsageError: The object is not a model of this library, or is not saved as a pickle.
        """
        ...


class TreeRuntime(StrEnum):
    """Who may score trees, and do the steps before them."""

    AUTO = "auto"
    """Fused steps and compiled trees where they are equal to the library, else the library."""
    NATIVE = "native"
    """The library."""


@dataclass(frozen=True)
class Runtime:
    """Who scores a loaded model, and in one line why."""

    name: str
    reason: str


COMPILED_TREES = Runtime("compiled trees", "auto: equal to the library on its own thresholds")


@runtime_checkable
class NamesRuntime(Protocol):
    """A predictor that says itself who scores; other compiled ones are compiled trees."""

    runtime: Runtime


@dataclass(frozen=True)
class SavedFlavor:
    """What a flavor wrote: the MLmodel entries, and the pip requirements that loading needs."""

    confs: Mapping[str, FlavorConf]
    requirements: tuple[str, ...]


class Flavor(Protocol):
    """One library's way in and out of a package; found by name in `sparkscore.flavors`."""

    name: str

    def save(self, model: object, folder: Path) -> SavedFlavor:
        """Write `model` below the existing empty `folder`.

        Raises:
            UsageError: The object is not a model of this library.
            UntrustedCodeError: It cannot be written without code that loading would have to trust.
        """
        ...

    def load(
        self, folder: Path, conf: FlavorConf, signature: Signature, trust: TrustPolicy
    ) -> Predictor:
        """A predictor for the package in `folder`, whose bytes were verified before.

        Raises:
            UntrustedCodeError: The policy does not admit what loading needs.
            PackageFormatError: `conf` or a file it names is not of the expected form.
            MissingExtraError: The library is not installed; names the extra.
        """
        ...
