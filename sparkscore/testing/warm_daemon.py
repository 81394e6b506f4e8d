"""A Python daemon for Spark that has imported what nearly every worker of the tests imports.

Workers are copies of their daemon. A task that fails ends its worker, and many tests let one fail:
each new worker would import the same libraries again, for longer than most tests take. sparkscore
itself is no part of it: workers import that as they do elsewhere.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

from sparkscore.spark.daemon import main

MODULE = "sparkscore.testing.warm_daemon"
_LIBRARIES = ("numpy", "pandas", "pyarrow.parquet", "yaml", "packaging.requirements", "filelock")

if __name__ == "__main__":
    # Other daemons of Spark's, such as those that plan a Python source, fork once or not at all.
    if sys.argv[1:] == ["pyspark.worker"]:
        for library in _LIBRARIES:
            import_module(library)
        gc.freeze()
    main()
