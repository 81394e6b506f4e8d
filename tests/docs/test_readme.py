"""The README does what it says: its blocks are run in order, as after `make demo`.

The folder has the repository's `conf` and `jobs`, and a `demo` of few flights. Shell blocks are one
shell session and Python blocks one Python session, as a reader would have them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import sparkscore
from sparkscore.demo.flights import october_flights, read_flights, training_flights
from sparkscore.demo.handover import stores_in, write_environment_file
from sparkscore.demo.models import package, train_lightgbm, train_pipeline
from sparkscore.names import parse_alias, parse_model_name
from sparkscore.spark.launch import LAUNCH_OPTIONS
from sparkscore.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(sparkscore.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIMIT_S = 600
N_TRAINING_ROWS = 5_000

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def after_the_demo(
    tmp_path_factory: pytest.TempPathFactory, spark: SparkSession, spark_cache: Path
) -> Path:
    """A folder in which a small demo was played."""
    root = tmp_path_factory.mktemp("readme")
    demo = root / "demo"
    demo.mkdir()
    for name in ("conf", "jobs"):
        (root / name).symlink_to(ROOT / name)
    flights = read_flights()
    october = october_flights(flights)
    pq.write_table(october.filter(pc.less_equal(october["day"], 5)), root / "october.parquet")
    source = spark.read.parquet(str(root / "october.parquet"))
    source.write.format("delta").save(str(demo / "flights"))
    sample = training_flights(flights).slice(0, N_TRAINING_ROWS)
    workspace = Workspace.open(conf=ROOT / "conf", overrides=stores_in(demo))
    name, champion = parse_model_name("flight-delay"), parse_alias("champion")
    for number, train in enumerate((train_pipeline, train_lightgbm), start=1):
        package(train(sample), sample, demo / "packages" / str(number))
        workspace.registry.register(
            demo / "packages" / str(number), name, alias=champion if number == 1 else None
        )
    write_environment_file(demo, spark_cache)
    return root


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a new shell says, that knows neither this environment nor its settings."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": os.environ.get("HOME", "/"),
            LAUNCH_OPTIONS: os.environ[LAUNCH_OPTIONS],
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    languages = re.findall(r"^```(\w*)\n(?:.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert set(languages) == {"", "bash", "python"}
    assert languages.count("") == 1


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = blocks("")[0].split("\n")[:-1]
    assert commands == ["make demo", "make test"]
    assert {command.removeprefix("make ") for command in commands} <= set(targets)


def test_every_extra_it_names_is_one_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists: list[str] = re.findall(r"pip install '\.\[([\w,]+)\]'", README)
    assert lists
    assert set(",".join(lists).split(",")) <= set(project["optional-dependencies"])


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_shell_blocks_run_in_order(after_the_demo: Path) -> None:
    script = "\n".join(["set -euo pipefail", *blocks("bash")])
    done = shell(script, after_the_demo)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert '"status": "succeeded"' in done.stdout
    assert (after_the_demo / "demo" / "result.json").is_file()
    assert (after_the_demo / "demo" / "scores" / "_delta_log").is_dir()
    assert (after_the_demo / "demo" / "challenger" / "_delta_log").is_dir()
    assert (after_the_demo / "demo" / "stream" / "_delta_log").is_dir()


def test_the_python_blocks_run_in_order(after_the_demo: Path) -> None:
    (after_the_demo / "blocks.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    done = shell(f". demo/env.sh && {sys.executable} blocks.py", after_the_demo)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "prediction" in done.stdout
    assert (after_the_demo / "demo" / "packages" / "linear" / "MLmodel").is_file()
