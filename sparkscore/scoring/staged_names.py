"""How files are called that a run keeps in its target's folder until its commit."""

from __future__ import annotations

import re

SCORE_FILE = re.compile(r"part-\d{5,}-([0-9a-f]{32})-\w+-c\d{3,}\.zstd\.parquet")
"""Names of files that are written before they are committed, with the attempt in them."""
LEDGER_FOLDER = "_sparkscore"
"""Below a table's folder: what runs that are not committed yet have finished."""
LEDGER_FILE = re.compile(
    r"attempt-[0-9a-f]{32}\.json|discarded-[0-9a-f]{32}"
    r"|chunk-[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{32}\.json"
)
"""Names of the files in there; see `files.ledger`."""
