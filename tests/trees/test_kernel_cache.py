"""Where compiled kernels are kept, in fresh processes: what is compiled once is then read."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import sparkscore

ROOT = Path(sparkscore.__file__).parents[1]
SCORES = """
import numpy as np
from sparkscore.trees.forest_builder import ForestBuilder
from sparkscore.trees.scorer import ForestScorer

def score():
    builder = ForestBuilder(1, 1)
    builder.add_tree(None, np.array([1.5]))
    scores = np.zeros((1, 3))
    ForestScorer(builder.build()).add_scores(np.zeros((3, 1)), scores)
    assert scores.tolist() == [[1.5] * 3]
"""
COUNTS = """
from sparkscore.trees.kernel_cache import load_kernels
stats = load_kernels().score_bit_vectors.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def run(code: str, node: Path, path: Path = ROOT) -> str:
    env = os.environ | {"PYTHONPATH": str(path), "SPARKSCORE_NODE_CACHE": str(node)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_second_process_reads_what_the_first_compiled(tmp_path: Path) -> None:
    node = tmp_path / "node"
    assert run(SCORES + "score()" + COUNTS, node) == "0 1"
    assert run(SCORES + "score()" + COUNTS, node) == "1 0"


def test_source_in_a_zip_is_compiled_once_too(tmp_path: Path) -> None:
    archive = tmp_path / "sparkscore.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in (ROOT / "sparkscore").rglob("*.py"):
            zipped.write(path, path.relative_to(ROOT))
    assert run(SCORES + "score()" + COUNTS, tmp_path / "node", archive) == "0 1"
    assert run(SCORES + "score()" + COUNTS, tmp_path / "node", archive) == "1 0"


def test_folder_that_others_may_write_gets_no_kernel_and_gives_none(tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.mkdir()
    node.chmod(0o777)
    run(SCORES + "score()", node)
    assert [path for path in node.rglob("*") if path.is_file()] == []


def test_forked_processes_score_with_the_kernels_of_their_parent(tmp_path: Path) -> None:
    forks = """
import os
score()
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        score()
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""
    assert run(SCORES + forks, tmp_path / "node") == "[0, 0, 0]"


def test_other_users_of_numba_keep_their_own_cache(tmp_path: Path) -> None:
    code = "import numba\nbefore = numba.config.CACHE_DIR\n" + SCORES
    code += "score()\nprint(numba.config.CACHE_DIR == before)"
    assert run(code, tmp_path / "node") == "True"
