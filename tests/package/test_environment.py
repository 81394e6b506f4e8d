from __future__ import annotations

import platform
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from sparkscore.errors import UsageError
from sparkscore.package import Description, Package
from sparkscore.package.environment import (
    check_environment,
    pin_requirements,
    write_environment,
    write_example,
)


def test_requirements_are_pinned_to_what_is_installed() -> None:
    assert pin_requirements(["numpy", "click>=1", "numpy==1.0"])[0] == "click>=1"
    (only,) = pin_requirements(["pyarrow"])
    assert only == f"pyarrow=={pa.__version__}"


def test_requirement_that_does_not_parse_or_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="'numpy =='"):
        pin_requirements(["numpy =="])
    with pytest.raises(UsageError, match="'no-such-library' is not installed"):
        pin_requirements(["no-such-library"])


def test_environment_files_have_mlflows_form(tmp_path: Path) -> None:
    write_environment(tmp_path, ["a==1", "b==2"])
    python = platform.python_version()
    assert (tmp_path / "requirements.txt").read_text("utf-8") == "a==1\nb==2\n"
    assert yaml.safe_load((tmp_path / "python_env.yaml").read_text("utf-8")) == {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    conda = yaml.safe_load((tmp_path / "conda.yaml").read_text("utf-8"))
    assert conda["dependencies"] == [f"python={python}", "pip", {"pip": ["a==1", "b==2"]}]


def test_same_environment_has_no_differences(tmp_path: Path) -> None:
    package = Package(tmp_path, Description({}))
    assert check_environment(package) == []
    write_environment(tmp_path, pin_requirements(["numpy", "pandas"]))
    assert check_environment(package) == []


def test_each_difference_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("python: 2.7.18", "utf-8")
    (tmp_path / "requirements.txt").write_text(
        "# made by hand\nmlflow==3.17.2\nnumpy==0.1\nno-such-library>=2  # why\n"
        "-r other.txt\npandas ==\nnumpy==0.1; python_version < '3'\n\n",
        "utf-8",
    )
    lines = [str(found) for found in check_environment(Package(tmp_path, Description({})))]
    assert lines[0].startswith("python: the package was made with 2.7.18, here is 3.")
    assert lines[1].startswith("numpy: the package needs numpy==0.1, here is ")
    assert lines[2:] == [
        "no-such-library: the package needs no-such-library>=2, here it is not installed",
        "requirements.txt line 5: '-r other.txt' is no plain requirement and is not checked",
        "requirements.txt line 6: 'pandas ==' is no plain requirement and is not checked",
    ]


def test_example_is_plain_json(tmp_path: Path) -> None:
    rows = pa.RecordBatch.from_pydict(
        {"b": [b"\xff", None], "d": pa.array([0, None], pa.timestamp("us")), "l": [[1], []]}
    )
    info = write_example(tmp_path, rows, named=True)
    assert info["pandas_orient"] == "split"
    assert (tmp_path / "input_example.json").read_text("utf-8") == (
        '{"columns": ["b", "d", "l"], '
        '"data": [["/w==", "1970-01-01T00:00:00", [1]], [null, null, []]]}'
    )
