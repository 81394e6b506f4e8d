"""How models of each library get into packages and out of them, found by a table and by plug-ins.

A further flavor is a class like those below, named by an entry point of the group
`sparkscore.flavors`.
"""

from __future__ import annotations

from sparkscore.flavors.load import load_predictor
from sparkscore.flavors.python_model import LoaderModule, PythonModel, set_model
from sparkscore.flavors.registered import get_flavor, known_flavors
from sparkscore.flavors.save import save_model, set_signature

__all__ = [
    "LoaderModule",
    "PythonModel",
    "get_flavor",
    "known_flavors",
    "load_predictor",
    "save_model",
    "set_model",
    "set_signature",
]
