"""How many threads native libraries may use in a worker: as many as its task has cores.

Each slot of an executor runs a process of its own, so that a library that takes all cores for
itself would make every slot slower.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from threadpoolctl import ThreadpoolController

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",  # LightGBM, XGBoost, scikit-learn, torch, and most of BLAS
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
"""Read by native libraries when they are loaded; set before a model brings them in."""


@dataclass
class TaskThreads:
    """The threads of one task.

    Attributes:
        n_cores: Cores that the task has.
        n_in_force: The most threads that a library says it would use, when `limit` last looked.
    """

    n_cores: int
    n_in_force: int = field(init=False)
    _undo: ExitStack = field(default_factory=ExitStack)

    def limit(self) -> None:
        """Hold the libraries that are loaded by now to the cores of the task.

        Called again when a model has brought in more of them: not all read the variables.
        """
        # Not before the variables are set: it brings in NumPy, whose BLAS starts its threads then.
        import pyarrow as pa

        pools = ThreadpoolController()
        self._undo.enter_context(pools.limit(limits=self.n_cores))
        self._undo.callback(pa.set_cpu_count, pa.cpu_count())
        pa.set_cpu_count(self.n_cores)
        found = [int(pool["num_threads"]) for pool in pools.info()]
        torch = sys.modules.get("torch")
        if torch is not None:
            self._undo.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self.n_cores)
            found.append(torch.get_num_threads())
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is not None:
            # Its flavors set it before the first computation; no later word is heard. 0: all cores.
            n_threads = tensorflow.config.threading.get_intra_op_parallelism_threads()
            found.append(n_threads or os.cpu_count() or 1)
        self.n_in_force = max(found, default=self.n_cores)


@contextmanager
def limited_threads(n_cores: int) -> Iterator[TaskThreads]:
    """Hold native libraries to `n_cores` threads for the duration of a block.

    The variables stay set: libraries that come later in this process read them too.
    """
    set_variables(n_cores)
    with ExitStack() as undo:
        threads = TaskThreads(n_cores, undo)
        threads.limit()
        yield threads


def set_variables(n_cores: int) -> None:
    """Tell libraries that are loaded from now on how many threads to use."""
    for name in THREAD_VARIABLES:
        os.environ[name] = str(n_cores)


def task_cores() -> int:
    """The cores of the Spark task that runs here; 1 outside of one."""
    from pyspark import TaskContext  # only here is a task certain to exist

    context = TaskContext.get()
    return max(1, context.cpus()) if context is not None else 1
