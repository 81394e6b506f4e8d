"""`python -m sparkscore.cli`: the command where no script is installed."""

from __future__ import annotations

import sys

from sparkscore.cli import main

if __name__ == "__main__":
    sys.exit(main())
