"""A forest ready to score: the layout that is fastest for it, and its kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from sparkscore.trees.bit_vectors import MAX_LEAVES, BitVectors, lay_out_bit_vectors
from sparkscore.trees.forest import Forest
from sparkscore.trees.kernel_cache import load_kernels
from sparkscore.trees.oblivious import Oblivious, lay_out_oblivious
from sparkscore.trees.traversal import Traversal, lay_out_traversal

_Layout = BitVectors | Oblivious | Traversal
_Kernel = Callable[[_Layout, np.ndarray, np.ndarray], None]


class ForestScorer:
    """Adds up the leaves of each row, in the order of the trees.

    Args:
        forest: What a reader made.
        is_float32: Whether matrices are float32; else float64.
        sums_float32: Whether leaves are added up in float32, as they are then; else in float64.

    Raises:
        NotCompiledError: numba cannot be loaded, or the forest is too large for the kernels.
    """

    def __init__(
        self, forest: Forest, *, is_float32: bool = False, sums_float32: bool = False
    ) -> None:
        kernels = load_kernels()
        self.n_features = forest.n_features
        self.n_outputs = forest.n_outputs
        self.dtype = np.dtype(np.float32 if is_float32 else np.float64)
        self.score_dtype = np.dtype(np.float32 if sums_float32 else np.float64)
        self._layout: _Layout
        oblivious = lay_out_oblivious(forest) if is_float32 else None
        if oblivious is not None:
            self._layout = oblivious
            kernel = kernels.score_oblivious
        elif forest.n_leaves.max(initial=1) <= MAX_LEAVES:
            self._layout = lay_out_bit_vectors(forest)
            kernel = kernels.score_bit_vectors
        else:
            self._layout = lay_out_traversal(forest)
            kernel = kernels.score_traversal
        compiled = kernels.for_arguments(kernel, self._layout, self.dtype, self.score_dtype)
        self._kernel = cast("_Kernel", compiled)

    def takes(self, matrix: object) -> bool:
        """Whether `add_scores` takes it; a sparse matrix, for one, it does not."""
        return (
            isinstance(matrix, np.ndarray)
            and matrix.dtype == self.dtype
            and matrix.ndim == 2  # noqa: PLR2004 - a matrix has two axes
            and matrix.shape[1] == self.n_features
        )

    def add_scores(self, matrix: np.ndarray, scores: np.ndarray) -> None:
        """Add to `scores` what each row's leaves are worth.

        Args:
            matrix: (n_rows, n_features) of the scorer's dtype, in any memory order.
            scores: (n_outputs, n_rows) of `score_dtype`, C-contiguous; changed in place.
        """
        assert self.takes(matrix)
        assert scores.shape == (self.n_outputs, matrix.shape[0])
        assert scores.dtype == self.score_dtype
        assert scores.flags.c_contiguous
        self._kernel(self._layout, matrix, scores)
