"""Sources, models and packages that change while jobs run, or before."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from benchmarks.faults.trials import Ended
from benchmarks.faults.world import N_ROWS, World, expect, expect_exit
from sparkscore.errors import DataError, ModelError, TemporaryError

_N_AGAIN = 1000
_CHANGES = ("dropped", "renamed", "text", "narrowed", "more", "other order")


def source_changes(world: World, target: str, rng: random.Random) -> Ended:
    """F08: the source gets other columns while a job runs, and the next job meets them."""
    change = rng.choice(_CHANGES)
    world.tell("hold")
    job = world.start(*world.batch(target))
    expect(job.await_sign(lambda: world.is_told("held")), job.said())
    version = DeltaTable(world.folder / "rows").version()
    rows = DeltaTable(world.folder / "rows").to_pyarrow_table()
    write_deltalake(
        world.folder / "rows", _changed(rows, change), mode="overwrite", schema_mode="overwrite"
    )
    (world.gate / "hold").unlink()
    try:
        answer = job.answer()
        expect_exit(answer, 0, f"{change}: the running job")
        after = world.run(*world.batch(f"{target}-after"))
        if change in ("dropped", "renamed", "text"):
            expect_exit(after, ModelError.exit_code, f"{change}: the next job")
            expect("'x'" in after.result["message"], f"{change}: it said {after.result['message']}")
            return Ended()
        expect_exit(after, 0, f"{change}: the next job")
        expect(world.commits(f"{target}-after") == 1, f"{change}: it did not commit")
    finally:
        DeltaTable(world.folder / "rows").restore(version)
    return Ended()


def alias_moves(world: World, target: str, rng: random.Random) -> Ended:  # noqa: ARG001 - as all faults
    """F18: the alias moves back and forth while a job runs."""
    world.tell("hold")
    job = world.start(*world.batch(target))
    expect(job.await_sign(lambda: world.is_told("held")), job.said())
    if not (world.folder / "line-2").exists():
        shutil.copytree(world.folder / "other", world.folder / "line-2")
        world.register("line", world.folder / "line-2")
    for version in ("2", "1"):
        answer = world.run("aliases", "set", "line", "champion", version)
        expect_exit(answer, 0)
    (world.gate / "hold").unlink()
    expect_exit(job.answer(), 0)
    digests = DeltaTable(world.folder / target).to_pyarrow_table(columns=["model_digest"])
    n_digests = len(digests["model_digest"].unique())
    expect(n_digests == 1, f"{n_digests} digests in one run")
    return Ended()


def artifacts_go(world: World, target: str, rng: random.Random) -> Ended:  # noqa: ARG001 - as all faults
    """F19: the artifact store goes during a job; the next has a verified copy, or begins nothing.

    The copy is one that an earlier job has fetched, and that has the digest of the version.
    """
    store, away = world.folder / "sparkscore-artifacts", world.folder / "away"
    world.tell("hold")
    job = world.start(*world.batch(target))
    expect(job.await_sign(lambda: world.is_told("held")), job.said())
    store.rename(away)
    try:
        (world.gate / "hold").unlink()
        answer = job.answer()
        expect_exit(answer, 0, "the running job")
        after = world.run(*world.batch(f"{target}-after"))
        codes = (0, ModelError.exit_code, TemporaryError.exit_code)
        expect(after.exit_code in codes, f"the next job ended with {after.exit_code}")
        n_commits = world.commits(f"{target}-after")
        expect(n_commits == (after.exit_code == 0), f"the next job has made {n_commits} commits")
    finally:
        shutil.rmtree(store, ignore_errors=True)
        away.rename(store)
    return Ended()


def package_damaged(world: World, target: str, rng: random.Random) -> Ended:
    """F20: one file of the package is changed, cut, emptied, swapped, or one is added."""
    package = world.folder / f"{target}-package"
    shutil.copytree(world.folder / "line", package)
    how = rng.choice(["bit", "cut", "empty", "swapped", "more"])
    _damage(package, how, rng)
    answer = world.run(*world.batch(target, model=str(package)))
    shutil.rmtree(package)
    expect_exit(answer, ModelError.exit_code, how)
    expect("Opening Spark" not in answer.stderr, f"{how}: Spark was opened before")
    return Ended(n_commits=0)


def doubled_rows(world: World, target: str, rng: random.Random) -> Ended:
    """F24: rows of the source come twice, and the rule that was declared decides about them."""
    rule = rng.choice(["keep", "fail", "first"])
    version = DeltaTable(world.folder / "rows").version()
    rows = DeltaTable(world.folder / "rows").to_pyarrow_table().sort_by("id")
    again = rows.slice(rng.randrange(N_ROWS - _N_AGAIN), _N_AGAIN)
    write_deltalake(world.folder / "rows", again, mode="append")
    doubled = f"{target}-doubled"
    order = ("--order-by", "part") if rule == "first" else ()
    try:
        answer = world.run(*world.batch(doubled, "--duplicates", rule, *order))
    finally:
        DeltaTable(world.folder / "rows").restore(version)
    if rule == "fail":
        expect_exit(answer, DataError.exit_code, rule)
        expect(world.commits(doubled) == 0, "something was committed")
        return Ended(n_commits=0)
    expect_exit(answer, 0, rule)
    skipped = answer.result["metrics"]["rows_skipped"]
    expect(skipped == (_N_AGAIN if rule == "first" else 0), f"{rule}: {skipped} rows were skipped")
    ids = DeltaTable(world.folder / doubled).to_pyarrow_table(columns=["id"])["id"].to_numpy()
    want = np.ones(N_ROWS, int)
    if rule == "keep":
        want[again["id"].to_numpy()] = 2
    found = np.bincount(ids, minlength=N_ROWS)
    expect(np.array_equal(found, want), f"{rule}: other rows are there than the rule leaves")
    return Ended(n_commits=0)


def _changed(rows: pa.Table, change: str) -> pa.Table:
    x = rows["x"]
    place = rows.schema.get_field_index("x")
    if change == "dropped":
        return rows.drop_columns(["x"])
    if change == "renamed":
        return rows.rename_columns(["X2" if name == "x" else name for name in rows.column_names])
    if change == "text":
        return rows.set_column(place, "x", x.cast(pa.string()))
    if change == "narrowed":
        return rows.set_column(place, "x", x.cast(pa.float32()))
    if change == "more":
        return rows.append_column("more", x)
    return rows.select(list(reversed(rows.column_names)))


def _damage(package: Path, how: str, rng: random.Random) -> None:
    files = sorted(path for path in package.rglob("*") if path.is_file())
    one = rng.choice([path for path in files if path.stat().st_size])
    content = bytearray(one.read_bytes())
    if how == "bit":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        one.write_bytes(content)
    elif how == "cut":
        one.write_bytes(content[: rng.randrange(len(content))])
    elif how == "empty":
        one.write_bytes(b"")
    elif how == "swapped":
        other = next(path for path in files if path.read_bytes() != bytes(content))
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        (package / "more.py").write_text("import os\n")
