from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from sparkscore.package import pack, seal
from sparkscore.package.node_packages import HeldPackage, hold_package

N_BYTES = 10_000
HOLD = """
import io, sys
from sparkscore.package.node_packages import hold_package

held = hold_package(sys.argv[1], io.BytesIO, 2**40)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node of its own, whose cache is empty."""
    monkeypatch.setenv("SPARKSCORE_NODE_CACHE", str(tmp_path / "node"))
    return tmp_path / "node"


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, bytes]:
    """Four packages of about N_BYTES each, packed, by digest."""
    packed = {}
    for i in range(4):
        folder = tmp_path / f"package-{i}"
        folder.mkdir()
        (folder / "MLmodel").write_text(f"flavors: {{}}\nrun_id: {i}\n")
        (folder / "weights.bin").write_bytes(bytes([i]) * N_BYTES)
        digest = seal(folder).digest
        packed[digest] = pack(folder)
    return packed


def hold(packages: dict[str, bytes], digest: str, n_packages: int) -> HeldPackage:
    """Hold a package on a node that has room for `n_packages`."""
    return hold_package(digest, lambda: BytesIO(packages[digest]), (n_packages + 1) * N_BYTES - 1)


def kept(node: Path) -> set[str]:
    return {path.name for path in node.iterdir() if path.is_dir()}


def test_packages_that_were_not_used_for_longest_make_room(
    node: Path, packages: dict[str, bytes]
) -> None:
    first, second, third, fourth = packages
    for digest in (first, second, first, third):
        hold(packages, digest, n_packages=3).release()
    assert kept(node) == {first, second, third}
    hold(packages, fourth, n_packages=2).release()
    assert kept(node) == {third, fourth}


def test_package_in_use_is_kept(node: Path, packages: dict[str, bytes]) -> None:
    first, second, third, _ = packages
    held = hold(packages, first, n_packages=1)
    hold(packages, second, n_packages=1).release()
    hold(packages, third, n_packages=1).release()
    assert kept(node) == {first, third}
    assert (held.folder / "weights.bin").stat().st_size == N_BYTES
    held.release()


def test_package_in_use_by_another_process_is_kept_until_that_ends(
    node: Path, packages: dict[str, bytes]
) -> None:
    first, second, third, _ = packages
    hold(packages, first, n_packages=1).release()
    other = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HOLD, first],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    hold(packages, second, n_packages=1).release()
    assert kept(node) == {first, second}
    other.communicate(timeout=60)
    hold(packages, third, n_packages=1).release()
    assert kept(node) == {third}


def test_package_larger_than_the_room_is_unpacked_all_the_same(
    node: Path, packages: dict[str, bytes]
) -> None:
    digest, *_ = packages
    held = hold(packages, digest, n_packages=0)
    assert held.n_bytes > N_BYTES
    assert kept(node) == {digest}
    held.release()


def test_package_that_is_there_is_not_read_again(packages: dict[str, bytes], node: Path) -> None:
    digest, *_ = packages
    hold(packages, digest, n_packages=1).release()
    hold({digest: b"no package"}, digest, n_packages=1).release()
    assert kept(node) == {digest}
