from __future__ import annotations

import builtins
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import sparkscore
from sparkscore.errors import MissingExtraError

ROOT = Path(sparkscore.__file__).parents[1]


def test_the_door_has_few_names_sorted_and_each_opens() -> None:
    assert sparkscore.__all__ == sorted(sparkscore.__all__)
    assert dir(sparkscore) == sparkscore.__all__
    for name in sparkscore.__all__:
        assert getattr(sparkscore, name) is not None


def test_the_version_is_the_one_of_the_build() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sparkscore.__version__ == project["version"]


def test_importing_sparkscore_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, sparkscore; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} "
        "- set(sys.stdlib_module_names)))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    args = [sys.executable, "-S", "-c", code]
    done = subprocess.run(args, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['__main__', 'sparkscore']"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sparkscore' has no attribute 'scor'"):
        _ = sparkscore.scor  # type: ignore[attr-defined]


def test_a_name_whose_library_is_missing_says_which_extra_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without_pyspark(
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the builtin's own names
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> object:
        if name.partition(".")[0] == "pyspark":
            raise ModuleNotFoundError("No module named 'pyspark'", name="pyspark")
        return real(name, globals, locals, fromlist, level)

    for module in [name for name in sys.modules if name.startswith("sparkscore.spark")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without_pyspark)
    with pytest.raises(MissingExtraError) as caught:
        _ = sparkscore.score
    assert str(caught.value) == (
        "sparkscore.score needs 'pyspark', which is not installed; "
        "run: pip install 'sparkscore[spark]'"
    )
