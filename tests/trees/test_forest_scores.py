"""All layouts against a walk in plain Python, over forests that no library would grow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.trees.bit_vectors import BLOCK_ROWS, lay_out_bit_vectors
from sparkscore.trees.forest import NUMERICAL, ZERO, CategorySet, Forest, NotCompiledError
from sparkscore.trees.forest_builder import ForestBuilder, TreeNodes
from sparkscore.trees.kernel_cache import load_kernels
from sparkscore.trees.oblivious import lay_out_oblivious
from sparkscore.trees.scorer import ForestScorer
from sparkscore.trees.traversal import lay_out_traversal

N_FEATURES = 5
THRESHOLDS = np.array([-np.inf, -1e300, -1.0, -ZERO, -0.0, 0.0, 5e-324, ZERO, 0.1, 1.0, np.inf])
VALUES = np.concatenate([THRESHOLDS, np.nextafter(THRESHOLDS, np.inf), [np.nan, 2.5, 40.0, 3e9]])


def grown(rng: np.random.Generator, n_leaves: int, sets: list[int]) -> TreeNodes:
    """A tree of any shape: a random leaf is split until there are enough."""
    n_nodes = n_leaves - 1
    left, right = np.zeros(n_nodes, int), np.zeros(n_nodes, int)
    places: list[tuple[np.ndarray, int]] = []
    for node in range(n_nodes):
        if node:
            children, parent = places.pop(rng.integers(len(places)))
            children[parent] = node
        places += [(left, node), (right, node)]
    for leaf, (children, parent) in enumerate(places):
        children[parent] = ~leaf
    category = np.where(rng.random(n_nodes) < 0.2, rng.choice(sets, n_nodes), NUMERICAL)
    return TreeNodes(
        feature=rng.integers(0, N_FEATURES, n_nodes),
        threshold=np.where(
            rng.random(n_nodes) < 0.5, rng.choice(THRESHOLDS, n_nodes), rng.normal(size=n_nodes)
        ),
        left=left,
        right=right,
        missing_left=rng.random(n_nodes) < 0.5,
        zero_is_missing=(rng.random(n_nodes) < 0.3) & (category == NUMERICAL),
        category_set=category,
    )


def forest_of(seed: int, sizes: list[int], n_values: int = 1) -> Forest:
    rng = np.random.default_rng(seed)
    n_outputs = n_values + 1
    builder = ForestBuilder(N_FEATURES, n_outputs)
    sets = [
        builder.category_set(CategorySet(tuple(rng.random(n) < 0.5), bool(n % 2)))
        for n in (1, 3, 40)
    ]
    for i, n_leaves in enumerate(sizes):
        nodes = grown(rng, n_leaves, sets) if n_leaves > 1 else None
        builder.add_tree(nodes, rng.normal(size=(n_leaves, n_values)), i % 2)
    return builder.build()


def oblivious_forest(seed: int, depths: list[int], n_values: int = 1) -> Forest:
    """Trees with one test a level, float32 thresholds and leaves in any order."""
    rng = np.random.default_rng(seed)
    builder = ForestBuilder(N_FEATURES, n_values + 1)
    for i, depth in enumerate(depths):
        n_nodes = (1 << depth) - 1
        level = np.repeat(np.arange(depth), 1 << np.arange(depth))
        children = np.arange(1, 2 * n_nodes + 1)
        leaf = rng.permutation(n_nodes + 1)
        children[n_nodes - 1 :] = ~leaf if depth else children[n_nodes - 1 :]
        thresholds = np.where(rng.random(depth) < 0.5, rng.normal(size=depth), [0.5] * depth)
        nodes = TreeNodes.numerical(
            feature=rng.integers(0, N_FEATURES, depth)[level],
            threshold=thresholds.astype(np.float32).astype(np.float64)[level],
            left=children[::2],
            right=children[1::2],
            missing_left=(rng.random(depth) < 0.5)[level],
        )
        values = rng.normal(size=(n_nodes + 1, n_values))
        builder.add_tree(nodes if depth else None, values, i % 2)
    return builder.build()


def walked(forest: Forest, matrix: np.ndarray) -> np.ndarray:
    scores = np.zeros((forest.n_outputs, len(matrix)))
    for row, values in enumerate(matrix):
        for tree, root in enumerate(forest.root):
            child = int(root)
            while child >= 0:
                children = forest.left if goes_left(forest, child, values) else forest.right
                child = int(children[child])
            for k, value in enumerate(forest.leaf_value[~child]):
                scores[forest.output[tree] + k, row] += value
    return scores


def goes_left(forest: Forest, node: int, values: np.ndarray) -> bool:
    value = float(values[forest.feature[node]])
    if np.isnan(value) or (forest.zero_is_missing[node] and abs(value) <= ZERO):
        return bool(forest.missing_left[node])
    if forest.category_set[node] == NUMERICAL:
        return bool(value <= float(forest.threshold[node]))
    categories: CategorySet = forest.category_sets[forest.category_set[node]]
    if -1 < value < len(categories.goes_left):
        return categories.goes_left[int(value)]
    return categories.others_left


def rows(seed: int, n_rows: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (n_rows, N_FEATURES)
    return np.where(rng.random(shape) < 0.6, rng.choice(VALUES, shape), rng.normal(size=shape))


def scored(forest: Forest, matrix: np.ndarray, layout: str) -> np.ndarray:
    kernels = load_kernels()
    lay_out, kernel = {
        "bits": (lay_out_bit_vectors, kernels.score_bit_vectors),
        "walk": (lay_out_traversal, kernels.score_traversal),
        "levels": (lay_out_oblivious, kernels.score_oblivious),
    }[layout]
    laid_out = lay_out(forest)
    assert laid_out is not None
    scores = np.zeros((forest.n_outputs, len(matrix)))
    kernels.for_arguments(kernel, laid_out, matrix.dtype, scores.dtype)(laid_out, matrix, scores)
    return scores


@pytest.mark.parametrize("layout", ["bits", "walk"])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    n_values=st.integers(1, 3),
)
def test_any_forest_scores_as_a_plain_walk_to_the_bit(
    layout: str, seed: int, sizes: list[int], n_values: int
) -> None:
    forest, matrix = forest_of(seed, sizes, n_values), rows(seed, 40)
    assert scored(forest, matrix, layout).tobytes() == walked(forest, matrix).tobytes()


@pytest.mark.parametrize("layout", ["bits", "walk"])
@pytest.mark.parametrize("n_leaves", [1, 2, 8, 9, 64, 65, 255, 256, 257, 500])
def test_tree_of_any_size_scores_as_a_plain_walk(layout: str, n_leaves: int) -> None:
    forest, matrix = forest_of(n_leaves, [n_leaves, 3, n_leaves]), rows(n_leaves, 100)
    assert scored(forest, matrix, layout).tobytes() == walked(forest, matrix).tobytes()


@pytest.mark.parametrize("layout", ["bits", "walk"])
@pytest.mark.parametrize("n_rows", [0, 1, 63, 64, 65, BLOCK_ROWS, BLOCK_ROWS + 1, 2049])
def test_batch_of_any_length_scores_each_row_alike(layout: str, n_rows: int) -> None:
    forest, matrix = forest_of(7, [20, 90]), rows(8, 2100)
    whole = scored(forest, matrix, layout)
    assert scored(forest, matrix[:n_rows], layout).tobytes() == whole[:, :n_rows].tobytes()


@pytest.mark.parametrize("layout", ["bits", "walk"])
def test_feature_with_more_thresholds_than_a_byte_holds_scores_exactly(layout: str) -> None:
    forest = forest_of(3, [900] * 6)
    assert len(np.unique(forest.threshold[forest.feature == 0])) > 255
    matrix = rows(4, 60)
    assert scored(forest, matrix, layout).tobytes() == walked(forest, matrix).tobytes()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    depths=st.lists(st.integers(0, 10), min_size=1, max_size=5),
    n_values=st.integers(1, 3),
)
def test_any_oblivious_forest_scores_as_a_plain_walk_to_the_bit(
    seed: int, depths: list[int], n_values: int
) -> None:
    forest = oblivious_forest(seed, depths, n_values)
    matrix = float32_rows(forest, seed, 40)
    assert scored(forest, matrix, "levels").tobytes() == walked(forest, matrix).tobytes()


@pytest.mark.parametrize("depth", [7, 8, 9, 16])
def test_oblivious_tree_of_any_depth_scores_as_a_plain_walk(depth: int) -> None:
    forest = oblivious_forest(depth, [depth, 2])
    matrix = float32_rows(forest, depth, 600)
    assert scored(forest, matrix, "levels").tobytes() == walked(forest, matrix).tobytes()


@pytest.mark.parametrize("n_trees", [15, 80, 400])
def test_oblivious_forest_of_many_thresholds_scores_as_a_plain_walk(n_trees: int) -> None:
    forest = oblivious_forest(n_trees, [6] * n_trees)
    matrix = float32_rows(forest, n_trees, 60)
    assert scored(forest, matrix, "levels").tobytes() == walked(forest, matrix).tobytes()


@pytest.mark.parametrize("n_rows", [0, 1, 63, BLOCK_ROWS, BLOCK_ROWS + 1, 2049])
def test_batch_of_any_length_scores_each_row_alike_by_levels(n_rows: int) -> None:
    forest = oblivious_forest(7, [6, 9])
    matrix = float32_rows(forest, 8, 2100)
    whole = scored(forest, matrix, "levels")
    assert scored(forest, matrix[:n_rows], "levels").tobytes() == whole[:, :n_rows].tobytes()


def changed(forest: Forest, name: str, value: object) -> Forest:
    """The forest with the last node's `name` set."""
    array = getattr(forest, name).copy()
    array[-1] = value
    return replace(forest, **{name: array})


def test_only_oblivious_trees_of_float32_are_laid_out_by_their_levels() -> None:
    forest = oblivious_forest(1, [3, 3])
    assert lay_out_oblivious(forest) is not None
    for name, value in (
        ("feature", (forest.feature[-1] + 1) % N_FEATURES),
        ("threshold", 7.0),
        ("missing_left", not forest.missing_left[-1]),
        ("zero_is_missing", True),
        ("category_set", 0),
    ):
        assert lay_out_oblivious(changed(forest, name, value)) is None
    one_level = oblivious_forest(1, [1])
    assert lay_out_oblivious(changed(one_level, "threshold", 0.1)) is None
    assert lay_out_oblivious(forest_of(2, [3])) is None
    assert lay_out_oblivious(oblivious_forest(1, [17])) is None


def float32_rows(forest: Forest, seed: int, n_rows: int) -> np.ndarray:
    """Values of which half are thresholds of the forest or right beside one."""
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        matrix = rows(seed, n_rows).astype(np.float32)
    ties = rng.choice([*forest.threshold, 0.0], matrix.shape).astype(np.float32)
    above = np.nextafter(ties, np.float32(np.inf))
    return np.choose(rng.integers(0, 4, matrix.shape), [ties, above, matrix, matrix])


def test_memory_order_of_the_matrix_changes_no_bit() -> None:
    forest, matrix = forest_of(5, [30, 40]), rows(6, 300)
    scorer = ForestScorer(forest)
    answers = []
    for each in (matrix, np.asfortranarray(matrix), np.repeat(matrix, 2, axis=0)[::2]):
        scores = np.zeros((forest.n_outputs, len(matrix)))
        scorer.add_scores(each, scores)
        answers.append(scores.tobytes())
    assert len(set(answers)) == 1


def test_float32_matrix_scores_as_its_values_in_float64() -> None:
    forest = forest_of(9, [50, 60])
    matrix = np.nan_to_num(rows(10, 300), posinf=1e30, neginf=-1e30).clip(-1e30, 1e30)
    narrow = matrix.astype(np.float32)
    expected = scored(forest, narrow.astype(np.float64), "bits")
    assert scored(forest, narrow, "bits").tobytes() == expected.tobytes()
    assert scored(forest, narrow, "walk").tobytes() == expected.tobytes()


def test_scorer_takes_no_sparse_matrix_and_no_other_dtype() -> None:
    scorer = ForestScorer(forest_of(1, [3]))
    assert scorer.takes(np.zeros((2, N_FEATURES)))
    assert not scorer.takes(np.zeros((2, N_FEATURES), np.float32))
    assert not scorer.takes(np.zeros((2, N_FEATURES + 1)))
    assert not scorer.takes(object())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"left": np.array([1, 1])}, "no binary tree"),
        ({"right": np.array([~2, ~5])}, "no binary tree"),
        ({"feature": np.array([0, N_FEATURES])}, "beyond the 5"),
        ({"threshold": np.array([0.0, np.nan])}, "no number"),
    ],
)
def test_nodes_that_are_no_tree_are_refused(change: dict[str, np.ndarray], said: str) -> None:
    fine = {
        "feature": np.array([0, 1]),
        "threshold": np.zeros(2),
        "left": np.array([1, ~0]),
        "right": np.array([~2, ~1]),
        "missing_left": np.zeros(2, bool),
    }
    builder = ForestBuilder(N_FEATURES, 1)
    with pytest.raises(NotCompiledError, match=said):
        builder.add_tree(TreeNodes.numerical(**{**fine, **change}), np.zeros(3))
