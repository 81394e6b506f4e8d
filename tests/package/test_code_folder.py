from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from sparkscore.errors import PackageFormatError
from sparkscore.package.code_folder import PackageCode, importable, package_code


def packed(folder: Path, files: Mapping[str, str]) -> PackageCode:
    """A package with these files of code."""
    for name, text in files.items():
        path = folder / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    code = package_code(folder, {"code": "code"}, "MLmodel flavors.python_function")
    assert code is not None
    return code


def imported(code: PackageCode, name: str) -> ModuleType:
    with code.importable():
        return importlib.import_module(name)


def test_modules_of_one_name_are_each_packages_own(tmp_path: Path) -> None:
    first = packed(tmp_path / "a", {"factors.py": "FACTOR = 2"})
    second = packed(tmp_path / "b", {"factors.py": "FACTOR = 3"})
    assert imported(first, "factors").FACTOR == 2
    assert imported(second, "factors").FACTOR == 3
    assert imported(first, "factors").FACTOR == 2
    assert imported(first, "factors") is imported(first, "factors")


def test_nothing_of_a_package_is_left_behind(tmp_path: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    code = packed(tmp_path, {"own/__init__.py": "", "own/part.py": "", "bare/part.py": ""})
    imported(code, "own.part")
    imported(code, "bare.part")
    assert sys.path == path
    assert set(sys.modules) == modules


def test_module_of_the_process_gives_way_and_comes_back(tmp_path: Path) -> None:
    ours = ModuleType("factors")
    sys.modules["factors"] = ours
    try:
        assert imported(packed(tmp_path, {"factors.py": "FACTOR = 2"}), "factors").FACTOR == 2
        assert sys.modules["factors"] is ours
    finally:
        del sys.modules["factors"]


def test_import_within_a_call_finds_the_packages_own(tmp_path: Path) -> None:
    late = "def factor():\n    from factors import FACTOR\n    return FACTOR\n"
    first = packed(tmp_path / "a", {"late.py": late, "factors.py": "FACTOR = 2"})
    second = packed(tmp_path / "b", {"late.py": late, "factors.py": "FACTOR = 3"})
    calls = {code: imported(code, "late").factor for code in (first, second)}
    for code, expected in ((second, 3), (first, 2), (second, 3)):
        with code.importable():
            assert calls[code]() == expected


def test_package_that_asks_another_has_its_own_again_afterwards(tmp_path: Path) -> None:
    outer = packed(tmp_path / "a", {"factors.py": "FACTOR = 2"})
    inner = packed(tmp_path / "b", {"factors.py": "FACTOR = 3"})
    with outer.importable():
        with inner.importable():
            assert importlib.import_module("factors").FACTOR == 3
            with outer.importable():
                assert importlib.import_module("factors").FACTOR == 2
            assert importlib.import_module("factors").FACTOR == 3
        assert importlib.import_module("factors").FACTOR == 2


def test_packages_of_several_threads_wait_for_each_other(tmp_path: Path) -> None:
    codes = [packed(tmp_path / str(i), {"factors.py": f"FACTOR = {i}"}) for i in range(8)]
    seen: dict[int, set[int]] = {i: set() for i in range(8)}

    def ask(i: int) -> None:
        for _ in range(50):
            seen[i].add(imported(codes[i], "factors").FACTOR)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {i: {i} for i in range(8)}


def test_error_on_import_leaves_nothing_behind(tmp_path: Path) -> None:
    code = packed(tmp_path, {"broken.py": "import sys\nsys.modules['broken']\nraise ValueError"})
    path = list(sys.path)
    with pytest.raises(ValueError, match=r"^$"):
        imported(code, "broken")
    assert sys.path == path
    assert "broken" not in sys.modules


def test_standard_library_and_foundation_are_not_replaced(tmp_path: Path) -> None:
    files = {"random.py": "", "numpy/__init__.py": "", "sparkscore/__init__.py": ""}
    code = packed(tmp_path, files)
    with code.importable():
        assert hasattr(importlib.import_module("random"), "Random")
        assert hasattr(importlib.import_module("numpy"), "ndarray")
        assert hasattr(importlib.import_module("sparkscore"), "score")


def test_folder_that_is_no_package_of_python_does_not_hide_one(tmp_path: Path) -> None:
    code = packed(tmp_path, {"yaml/notes.txt": ""})
    import yaml

    assert imported(code, "yaml") is yaml


def test_no_bytecode_is_written_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    imported(packed(tmp_path, {"own/__init__.py": ""}), "own")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["__init__.py", "code", "own"]
    assert not sys.dont_write_bytecode


@pytest.mark.parametrize("name", ["../outside", "/etc", "missing", "file.py", 7, ""])
def test_code_that_is_no_folder_of_the_package_is_refused(name: object, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "file.py").write_text("", "utf-8")
    with pytest.raises(PackageFormatError, match=r"python_function\.code "):
        package_code(folder, {"code": name}, "MLmodel flavors.python_function")


def test_link_in_the_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("", "utf-8")
    (tmp_path / "p" / "code").mkdir(parents=True)
    (tmp_path / "p" / "code" / "in.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(PackageFormatError, match=r"links: 'code/in\.py'"):
        package_code(tmp_path / "p", {"code": "code"}, "MLmodel flavors.python_function")


def test_package_without_code_changes_nothing(tmp_path: Path) -> None:
    path = list(sys.path)
    code = package_code(tmp_path, {"code": None}, "MLmodel flavors.sklearn")
    with importable(code):
        assert code is None
        assert sys.path == path
