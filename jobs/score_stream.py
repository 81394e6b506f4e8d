"""Score the rows that come to a table or folder, for `spark-submit`.

spark-submit jobs/score_stream.py --job conf/jobs/telemetry.yaml --trigger "10 seconds"

Takes the options of `sparkscore score stream`; settings come from conf/ and the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sparkscore.cli import main as sparkscore


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stream and return its exit code."""
    return sparkscore(["score", "stream", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
