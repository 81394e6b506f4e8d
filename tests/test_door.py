from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sparkscore

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
        _ = sparkscore.scor


@pytest.mark.parametrize("library", ["pyarrow", "pyspark"])
def test_a_name_whose_library_is_missing_says_which_extra_brings_it(
    tmp_path: Path, library: str
) -> None:
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    code = f"import sys; sys.modules[{library!r}] = None; import sparkscore; sparkscore.score"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    args = [sys.executable, "-c", code]
    done = subprocess.run(args, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"sparkscore.errors.MissingExtraError: sparkscore.score needs {library!r}, "
        "which is not installed; run: pip install 'sparkscore[spark]'"
    )
