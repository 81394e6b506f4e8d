"""Whatever test file comes first: Triton before TensorFlow, as `flavors.keras_files` has it."""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):
    import triton  # noqa: F401 - for the order
