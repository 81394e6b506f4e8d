"""A short run of the fault bench: a few faults, once each, in real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.faults import drivers
from benchmarks.faults.__main__ import FAULTS, main
from benchmarks.faults.trials import Ended, tried
from benchmarks.faults.world import World
from sparkscore.spark.jars import JarSource


@pytest.fixture(scope="module")
def world(delta_jars: JarSource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARKSCORE__CACHE__FOLDER", str(delta_jars.cache))
        world = World(tmp_path_factory.mktemp("faults") / "world")
        world.build()
        yield world
        world.clear()


@pytest.mark.parametrize("name", ["F02", "F27"])
def test_fault_is_survived_as_promised(name: str, world: World) -> None:
    trial = tried(world, name, FAULTS[name], seed=1)
    assert trial.is_right, trial


def test_bench_sees_what_was_lost_doubled_and_committed_twice(world: World) -> None:
    """Two jobs with other keys double each row; none loses all of them."""

    def other_keys(world: World, target: str, rng: object) -> Ended:  # noqa: ARG001 - as all faults
        for key in ("k1", "k2"):
            world.run(*world.batch(target, "--run-key", key))
        return Ended()

    def nothing(world: World, target: str, rng: object) -> Ended:  # noqa: ARG001 - as all faults
        return Ended()

    doubled = tried(world, "doubled", other_keys, seed=1)
    assert (doubled.lost, doubled.doubled, doubled.extra_commits) == (0, 600_000, 1)
    assert not doubled.is_right
    assert doubled.partial_reads > 0
    assert tried(world, "nothing", nothing, seed=1).lost == 600_000


def test_fault_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["F99"])
    assert "F99" in capsys.readouterr().err


def test_each_fault_says_in_one_line_what_it_does() -> None:
    assert FAULTS["F01"] is drivers.killed_at_random
    for name, fault in FAULTS.items():
        assert (fault.__doc__ or "").startswith(f"{name}: ")
