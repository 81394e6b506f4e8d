from __future__ import annotations

import ast
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

import sparkscore.stores
from sparkscore.stores.base import ArtifactStore, RunStore
from sparkscore.stores.models_base import LoggedModelStore, ModelStore
from sparkscore.stores.purges_base import PurgeStore
from sparkscore.stores.webhooks_base import WebhookStore

CONTRACTS: dict[type, str] = {
    RunStore: "RunStoreContract",
    ModelStore: "ModelStoreContract",
    LoggedModelStore: "LoggedModelStoreContract",
    ArtifactStore: "ArtifactStoreContract",
    WebhookStore: "WebhookStoreContract",
    PurgeStore: "PurgeStoreContract",
}


def _implementations(seam: type) -> set[str]:
    verbs = {name for name in vars(seam) if not name.startswith("_")}
    found = set()
    for module in pkgutil.walk_packages(sparkscore.stores.__path__, "sparkscore.stores."):
        if ".migrations" in module.name or module.name == "sparkscore.stores.base":
            continue
        for value in vars(import_module(module.name)).values():
            if isinstance(value, type) and value not in CONTRACTS and verbs <= set(dir(value)):
                found.add(value.__name__)
    return found


def _held_to(contract: str) -> set[str]:
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and contract in map(ast.unparse, node.bases):
                found |= {
                    ast.unparse(line.value)
                    for line in node.body
                    if isinstance(line, ast.Assign)
                    and ast.unparse(line.targets[0]) == "implementation"
                }
    return found


@pytest.mark.parametrize("seam", CONTRACTS, ids=lambda seam: seam.__name__)
def test_every_store_passes_its_contract(seam: type) -> None:
    implementations = _implementations(seam)
    assert len(implementations) >= 2
    assert implementations == _held_to(CONTRACTS[seam])
