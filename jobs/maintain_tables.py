"""Keep score tables fit, for `spark-submit`.

spark-submit jobs/maintain_tables.py s3a://lake/scores prod.scores.delays --retain-hours 336

Takes the options of `sparkscore tables maintain`; settings come from conf/ and the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sparkscore.cli import main as sparkscore


def main(argv: Sequence[str] | None = None) -> int:
    """Do the upkeep and return its exit code."""
    return sparkscore(["tables", "maintain", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
