"""Score a table into a Delta table, for `spark-submit`.

spark-submit jobs/score_batch.py --job conf/jobs/flights.yaml --run-key 2013-10-01

Takes the options of `sparkscore score batch`; settings come from conf/ and the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sparkscore.cli import main as sparkscore


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return sparkscore(["score", "batch", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
