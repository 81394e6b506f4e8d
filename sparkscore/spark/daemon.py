"""A Python daemon of Spark (`spark.python.daemon.module`) that loads a model before it forks.

Workers are copies of their daemon: with the model in it, a new worker has it at once, and all
workers of an executor share its memory. Spark ends workers that are idle for a minute, and has no
setting for that; the daemon stays.

A fork copies one thread only. Where loading has left others behind, whose pool a worker would wait
for without end, or where it has failed, the daemon starts anew without the model, and workers load
it by themselves.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULE = "sparkscore.spark.daemon"
PRELOAD_VARIABLE = "SPARKSCORE_PRELOAD"
"""What to load, as `sparkscore.spark.preloading` writes it; Spark keeps a daemon for each value."""

_SAFE_THREADS = {"jemalloc_bg_thd"}
"""pyarrow's allocator takes care of its own thread at a fork."""


def main() -> None:
    """Load the model that the environment names, if any, and serve Spark as its own daemon does."""
    wanted = os.environ.get(PRELOAD_VARIABLE)
    if wanted is not None:
        reason = _preload(wanted)
        if reason is not None:
            _start_anew(reason)
    else:
        _forget_ours()
    from pyspark.daemon import manager

    manager()


def _preload(wanted: str) -> str | None:
    """Load a model; why no worker may be forked then, or None."""
    try:
        with _stdout_kept():
            # Not before it is asked for: without a model the daemon is as light as Spark's own.
            from sparkscore.spark.threads import set_variables

            # A pool of more threads could not be forked; workers set what their tasks have.
            set_variables(1)
            from sparkscore.spark.preloading import load_preloaded

            load_preloaded(wanted)
            others = _other_threads()
    except Exception as exc:  # noqa: BLE001 - the edge to foreign code; workers meet it again and report it
        return f"{type(exc).__name__}: {exc}"
    if others:
        return f"loading it has started {len(others)} threads ({', '.join(sorted(set(others)))})"
    # Collecting writes to each object, and what a worker writes to is no longer shared.
    gc.collect()
    gc.freeze()
    return None


def _start_anew(reason: str) -> None:
    print(f"sparkscore: no model is preloaded: {reason}", file=sys.stderr, flush=True)  # noqa: T201
    del os.environ[PRELOAD_VARIABLE]
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the very command that Spark gave


def _forget_ours() -> None:
    """Leave it to workers to import sparkscore, since Spark may have sent them a newer one."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sparkscore"]:
        del sys.modules[name]


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Keep what a model prints out of stdout, where Spark awaits the daemon's port."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _other_threads() -> list[str]:
    """Names of this process's threads, native ones too, but for the one that forks."""
    threads = (path for path in Path("/proc/self/task").iterdir() if int(path.name) != os.getpid())
    return [name for path in threads if (name := _name_of(path)) not in _SAFE_THREADS]


def _name_of(thread: Path) -> str:
    return (thread / "comm").read_text().strip()


if __name__ == "__main__":
    main()
