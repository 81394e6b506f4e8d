"""What a flavor does, read off a package that it wrote: a row of docs/flavors.md."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from sparkscore.errors import UntrustedCodeError
from sparkscore.extras import extra_of
from sparkscore.flavors import known_flavors, load_predictor, save_model
from sparkscore.flavors.base import Convertible, Parametric, TreeRuntime
from sparkscore.package import Package, TrustPolicy
from sparkscore.testing.flavor_contract import FlavorContract

_COMMON = ("MLmodel", "conda.yaml", "input_example.json", "python_env.yaml", "requirements.txt")
HEAD = (
    "| flavor | extra | its own files | loads without trust | own runtime | params | to ONNX |",
    "|---|---|---|---|---|---|---|",
)


def contracts_in(folder: Path) -> Iterator[FlavorContract]:
    """The contract tests of flavors in a folder's test files, one a flavor that is installed."""
    found: dict[str, FlavorContract] = {}
    known = known_flavors()
    for path in sorted(folder.glob("test_*_flavor.py")):
        spec = importlib.util.spec_from_file_location(f"contracts.{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for item in vars(module).values():
            is_contract = isinstance(item, type) and issubclass(item, FlavorContract)
            if is_contract and item is not FlavorContract and item.flavor in known:
                found.setdefault(item.flavor, item())
    yield from found.values()


def row_of(contract: FlavorContract, folder: Path) -> str:
    """The row of a contract's flavor, off the model that the contract is kept with.

    Args:
        contract: Gives a model and rows for it.
        folder: A package is written there; must not exist.
    """
    package = save_model(
        contract.model(), folder, flavor=contract.flavor, input_example=contract.example()
    )
    loaded = load_predictor(package, TrustPolicy(allow_code=True), TreeRuntime.AUTO)
    native = load_predictor(package, TrustPolicy(allow_code=True), TreeRuntime.NATIVE).predictor
    cells = [
        f"`{contract.flavor}`",
        extra_of(contract.flavor) or "-",
        ", ".join(f"`{name}`" for name in _own_files(package)) or "-",
        "yes" if _loads_without_trust(package) else "no",
        "-" if loaded.runtime.name == "native" else loaded.runtime.name,
        "yes" if isinstance(native, Parametric) else "no",
        "yes" if isinstance(native, Convertible) else "no",
    ]
    return f"| {' | '.join(cells)} |"


def _own_files(package: Package) -> list[str]:
    names = {path.name for path in package.folder.iterdir()}
    return sorted(name for name in names - set(_COMMON) if not name.startswith("sparkscore"))


def _loads_without_trust(package: Package) -> bool:
    try:
        load_predictor(package, TrustPolicy())
    except UntrustedCodeError:
        return False
    return True
