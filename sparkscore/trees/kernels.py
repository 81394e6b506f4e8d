"""The compiled inner loops. Imported only by `kernel_cache`, which says where numba caches them.

Nothing checks bounds here: `bit_vectors`, `oblivious` and `traversal` lay out arrays whose indices
are sound, and only they are passed. One thread; the GIL is released.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from sparkscore.trees.bit_vectors import ALL_LEFT, BLOCK_ROWS, LEAVES_PER_PLANE, MISSING
from sparkscore.trees.forest import ZERO
from sparkscore.trees.oblivious import HIGHEST_COUNT, LOWEST_RANK

if TYPE_CHECKING:
    from sparkscore.trees.bit_vectors import BitVectors
    from sparkscore.trees.oblivious import Oblivious
    from sparkscore.trees.traversal import Traversal

TRAVERSAL_ROWS = 2048
"""Rows that walk down a tree together: enough to reuse its nodes, few enough for the caches."""

_Kernel = TypeVar("_Kernel", bound=Callable[..., object])
_Array = np.ndarray[Any, np.dtype[Any]]
_Untyped = Any  # What numba and llvmlite hand in.


def _compiled(kernel: _Kernel) -> _Kernel:
    return cast(
        "_Kernel",
        numba.njit(cache=bool(numba.config.CACHE_DIR), nogil=True, error_model="numpy")(kernel),
    )


def for_arguments(
    kernel: object, layout: object, dtype: np.dtype[Any], score_dtype: np.dtype[Any]
) -> object:
    """`kernel` compiled for a layout, matrices of `dtype` in any memory order, and its scores.

    Left to itself, numba compiles again for each memory order, and it sees another one in a
    matrix of one row.
    """
    matrix = types.Array(numba.from_dtype(dtype), 2, "A")
    scores = types.Array(numba.from_dtype(score_dtype), 2, "C")
    return cast("Any", kernel).compile((numba.typeof(layout), matrix, scores))


@_compiled
def score_bit_vectors(layout: BitVectors, matrix: _Array, scores: _Array) -> None:
    """Add to `scores` what each row's leaves are worth, tree after tree.

    Args:
        layout: The forest.
        matrix: (n_rows, n_features) float32 or float64.
        scores: (n_outputs, n_rows) float32 or float64, C-contiguous; what the sums are kept in.
            A float32 and the float32 of a leaf, added as doubles and rounded, are their float32
            sum.
    """
    n_rows = matrix.shape[0]
    n_columns = layout.column_start.size + layout.column_table.size
    n_values = layout.leaf_value.shape[1]
    values = np.zeros(BLOCK_ROWS, np.float64)
    found = np.zeros(BLOCK_ROWS, np.int32)
    ranks = np.zeros((n_columns, BLOCK_ROWS), np.int8)
    planes = np.zeros(BLOCK_ROWS, np.uint8)
    bits = np.zeros(BLOCK_ROWS, np.uint8)
    sums = np.zeros((scores.shape[0], BLOCK_ROWS), scores.dtype)
    for start in range(0, n_rows, BLOCK_ROWS):
        n = min(BLOCK_ROWS, n_rows - start)
        _rank_numbers(layout, matrix, start, n, values, found, ranks)
        _look_up_categories(layout, matrix, start, n, found, ranks)
        for output in range(scores.shape[0]):
            for row in range(n):
                sums[output, row] = scores[output, start + row]
        for tree in range(layout.tree_output.size):
            first = layout.tree_plane[tree]
            n_planes = layout.tree_plane[tree + 1] - first
            _find_exits(
                ranks,
                layout.step_column,
                layout.step_limit,
                layout.step_clear,
                layout.plane_step,
                first,
                n_planes,
                planes,
                bits,
            )
            leaf = np.uint64(layout.tree_leaf[tree])
            for k in range(n_values):
                output = layout.tree_output[tree] + k
                for row in range(n):
                    exit_leaf = leaf + np.uint64(planes[row]) * np.uint64(LEAVES_PER_PLANE)
                    sums[output, row] += layout.leaf_value[exit_leaf + np.uint64(bits[row]), k]
        for output in range(scores.shape[0]):
            for row in range(n):
                scores[output, start + row] = sums[output, row]


@_compiled
def score_oblivious(layout: Oblivious, matrix: _Array, scores: _Array) -> None:
    """The same as `score_bit_vectors` for float32 matrices, with one comparison a level."""
    n_rows = matrix.shape[0]
    values = np.zeros(BLOCK_ROWS, np.float32)
    counts = np.zeros(BLOCK_ROWS, np.int32)
    ranks = np.zeros((layout.column_feature.size, BLOCK_ROWS), np.int8)
    low = np.zeros(BLOCK_ROWS, np.uint8)
    high = np.zeros(BLOCK_ROWS, np.uint8)
    sums = np.zeros((scores.shape[0], BLOCK_ROWS), scores.dtype)
    for start in range(0, n_rows, BLOCK_ROWS):
        n = min(BLOCK_ROWS, n_rows - start)
        _count_thresholds(layout, matrix, start, n, values, counts, ranks)
        sums[:, :n] = scores[:, start : start + n]
        for tree in range(layout.tree_output.size):
            root, end = layout.tree_level[tree], layout.tree_level[tree + 1]
            middle = max(root, end - 8)
            _read_bits(ranks, layout.level_column, layout.level_limit, middle, end, low)
            _read_bits(ranks, layout.level_column, layout.level_limit, root, middle, high)
            first = np.uint64(layout.tree_leaf[tree])
            for k in range(layout.leaf_value.shape[1]):
                output = layout.tree_output[tree] + k
                if root == middle:
                    for row in range(n):
                        sums[output, row] += layout.leaf_value[first + np.uint64(low[row]), k]
                else:
                    for row in range(n):
                        leaf = first + np.uint64(high[row]) * np.uint64(256) + np.uint64(low[row])
                        sums[output, row] += layout.leaf_value[leaf, k]
        scores[:, start : start + n] = sums[:, :n]


@_compiled
def _count_thresholds(
    layout: Oblivious,
    matrix: _Array,
    start: int,
    n: int,
    values: _Array,
    counts: _Array,
    ranks: _Array,
) -> None:
    """Ranks of all columns: how many thresholds of the column lie below the value."""
    for column in range(layout.column_feature.size):
        feature = layout.column_feature[column]
        for row in range(n):
            values[row] = matrix[start + row, feature]
        table = layout.threshold[layout.column_start[column] : layout.column_start[column + 1]]
        # No threshold lies below NaN: a missing value that goes left needs nothing more.
        _count(table, values, counts)
        if layout.column_missing_right[column]:
            for row in range(BLOCK_ROWS):
                is_missing = np.isnan(values[row])
                counts[row] = np.int32(HIGHEST_COUNT) if is_missing else counts[row]
        for row in range(BLOCK_ROWS):
            ranks[column, row] = np.int8(counts[row] + LOWEST_RANK)


@_compiled
def _count(table: _Array, values: _Array, counts: _Array) -> None:
    """How many thresholds lie below each value of a block, by comparing with every one.

    For the up to 255 float32 of a column that takes no longer than `_search`, and for 64 a third.
    Four thresholds a pass, so that counts are stored less often.
    """
    counts[:] = 0
    n_passed = table.size - table.size % 4
    for k in range(0, n_passed, 4):
        a, b, c, d = table[k], table[k + 1], table[k + 2], table[k + 3]
        for row in range(BLOCK_ROWS):
            value = values[row]
            low = np.int32(a < value) + np.int32(b < value)
            counts[row] += low + np.int32(c < value) + np.int32(d < value)
    for k in range(n_passed, table.size):
        for row in range(BLOCK_ROWS):
            counts[row] += np.int32(table[k] < values[row])


@_compiled
def score_traversal(layout: Traversal, matrix: _Array, scores: _Array) -> None:
    """The same as `score_bit_vectors`, by walking down; rows of a block go level by level."""
    n_rows = matrix.shape[0]
    n_values = layout.leaf_value.shape[1]
    block = min(TRAVERSAL_ROWS, max(n_rows, 1))
    columns = np.zeros((layout.column_feature.size, block), np.float64)
    child = np.zeros(block, np.int32)
    walking = np.zeros(block, np.int32)
    for start in range(0, n_rows, block):
        n = min(block, n_rows - start)
        _fill_columns(layout, matrix, start, n, columns)
        for tree in range(layout.tree_output.size):
            _walk(layout, layout.tree_root[tree], columns, n, child, walking)
            for k in range(n_values):
                output = layout.tree_output[tree] + k
                for row in range(n):
                    leaf = np.uint64(~child[row])
                    scores[output, start + row] += layout.leaf_value[leaf, k]


@_compiled
def _rank_numbers(
    layout: BitVectors,
    matrix: _Array,
    start: int,
    n: int,
    values: _Array,
    found: _Array,
    ranks: _Array,
) -> None:
    """Ranks of the numerical columns: how many thresholds of the column lie below the value."""
    for search in range(layout.search_feature.size):
        feature = layout.search_feature[search]
        for row in range(n):
            values[row] = matrix[start + row, feature]
        table = layout.threshold[layout.search_start[search] : layout.search_start[search + 1]]
        _search(table, values, found)
        smallest = ZERO if layout.search_zero[search] else -1.0
        for row in range(BLOCK_ROWS):
            is_number = abs(values[row]) > smallest  # False for NaN
            found[row] = found[row] if is_number else np.int32(MISSING)
        for column in range(layout.search_column[search], layout.search_column[search + 1]):
            first = layout.column_start[column]
            missing = layout.column_missing[column]
            mirror = layout.column_mirror[column]
            for row in range(BLOCK_ROWS):
                rank = min(max(found[row] - first, np.int32(0)), np.int32(255))
                rank = missing if found[row] == MISSING else rank
                ranks[column, row] = np.int8(rank + ALL_LEFT) ^ mirror


@_compiled
def _search(table: _Array, values: _Array, found: _Array) -> None:
    """Binary search of all values of a block side by side: no branch depends on a value."""
    for row in range(BLOCK_ROWS):
        found[row] = 0
    size = table.size
    while size > 1:
        half = size >> 1
        middle = np.uint64(half - 1)
        for row in range(BLOCK_ROWS):
            base = np.uint64(found[row])
            step = np.int32(half) if table[base + middle] < values[row] else np.int32(0)
            found[row] = np.int32(base) + step
        size -= half
    for row in range(BLOCK_ROWS):
        found[row] += np.int32(table[np.uint64(found[row])] < values[row])


@_compiled
def _look_up_categories(
    layout: BitVectors, matrix: _Array, start: int, n: int, codes: _Array, ranks: _Array
) -> None:
    """Ranks of the categorical columns: the lowest for a category that goes left, else the next."""
    n_numerical = layout.column_start.size
    for group in range(layout.group_feature.size):
        n_categories = layout.group_n_categories[group]
        for row in range(n):
            codes[row] = _code(matrix[start + row, layout.group_feature[group]], n_categories)
        for column in range(layout.group_column[group], layout.group_column[group + 1]):
            table = np.uint64(layout.column_table[column])
            for row in range(n):
                ranks[n_numerical + column, row] = layout.table[table + np.uint64(codes[row])]


@_compiled
def _code(value: float, n_categories: int) -> np.int32:
    """The category, or n_categories for any other number, or n_categories + 1 for NaN."""
    if np.isnan(value):
        return np.int32(n_categories + 1)
    if value > -1.0 and value < n_categories:
        return np.int32(value)
    return np.int32(n_categories)


@_compiled
def _fill_columns(layout: Traversal, matrix: _Array, start: int, n: int, columns: _Array) -> None:
    """Values of a block, with -inf or NaN where one is missing: nodes then compare, and no more."""
    for column in range(layout.column_feature.size):
        feature = layout.column_feature[column]
        n_categories = layout.column_n_categories[column]
        if n_categories >= 0:
            for row in range(n):
                columns[column, row] = _code(matrix[start + row, feature], n_categories)
        else:
            smallest = ZERO if layout.column_zero[column] else -1.0
            for row in range(n):
                value = np.float64(matrix[start + row, feature])
                is_number = abs(value) > smallest  # False for NaN
                columns[column, row] = value if is_number else layout.column_missing[column]


@_compiled
def _walk(
    layout: Traversal, root: int, columns: _Array, n: int, child: _Array, walking: _Array
) -> None:
    """Lead n rows from a root to their leaves: `child` ends as ~leaf for every row."""
    for row in range(n):
        child[row] = root
        walking[row] = row
    n_walking = n if root >= 0 else 0
    while n_walking > 0:
        n_left = 0
        for i in range(n_walking):
            walker = np.uint64(walking[i])
            node = np.uint64(child[walker])
            value = columns[np.uint64(layout.link[node, 2]), walker]
            if layout.table.size and layout.link[node, 3] >= 0:
                goes_right = layout.table[np.uint64(layout.link[node, 3]) + np.uint64(value)]
            else:
                goes_right = np.uint8(not (value <= layout.threshold[node]))
            following = layout.link[node, np.uint64(goes_right)]
            child[walker] = following
            walking[np.uint64(n_left)] = walker
            n_left += following >= 0
        n_walking = n_left


@_compiled
def apply_sigmoid(scores: _Array, factor: float) -> None:
    """1 / (1 + exp(-factor * x)), in place.

    These links are kernels, and not NumPy, because NumPy brings an exp of its own: numba calls that
    of the C library, as the models' libraries do.
    """
    for output in range(scores.shape[0]):
        for row in range(scores.shape[1]):
            scores[output, row] = 1.0 / (1.0 + math.exp(-factor * scores[output, row]))


@_compiled
def apply_exp(scores: _Array) -> None:
    """exp(x), in place."""
    for output in range(scores.shape[0]):
        for row in range(scores.shape[1]):
            scores[output, row] = math.exp(scores[output, row])


@_compiled
def apply_log1p_exp(scores: _Array) -> None:
    """log(1 + exp(x)), in place."""
    for output in range(scores.shape[0]):
        for row in range(scores.shape[1]):
            scores[output, row] = math.log1p(math.exp(scores[output, row]))


@_compiled
def apply_softmax(scores: _Array) -> None:
    """exp(x - max) over its sum along the outputs, in place."""
    for row in range(scores.shape[1]):
        largest = scores[0, row]
        for output in range(1, scores.shape[0]):
            largest = max(scores[output, row], largest)
        total = 0.0
        for output in range(scores.shape[0]):
            scores[output, row] = math.exp(scores[output, row] - largest)
            total += scores[output, row]
        for output in range(scores.shape[0]):
            scores[output, row] /= total


@_compiled
def float32_log(value: np.float32) -> float:
    """The C library's logf."""
    return math.log(value)


@_compiled
def apply_sigmoid_float32(scores: _Array) -> None:
    """1 / (exp(-x) + 1), in place and in float32, without overflow."""
    one, largest = np.float32(1.0), np.float32(88.7)
    for output in range(scores.shape[0]):
        for row in range(scores.shape[1]):
            exponent = min(-scores[output, row], largest)
            scores[output, row] = one / (np.float32(math.exp(exponent)) + one)


@_compiled
def apply_softmax_float32(scores: _Array) -> None:
    """The same as `apply_softmax` in float32, but for the sum, which is rounded in the end."""
    for row in range(scores.shape[1]):
        largest = scores[0, row]
        for output in range(1, scores.shape[0]):
            largest = max(scores[output, row], largest)
        total = 0.0
        for output in range(scores.shape[0]):
            scores[output, row] = math.exp(scores[output, row] - largest)
            total += scores[output, row]
        for output in range(scores.shape[0]):
            scores[output, row] /= np.float32(total)


_BYTE, _WORD, _SIZE = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_LANES = ir.VectorType(_BYTE, BLOCK_ROWS)


@intrinsic  # type: ignore[untyped-decorator]
def _find_exits(
    _typing: _Untyped,
    ranks: _Untyped,
    columns: _Untyped,
    limits: _Untyped,
    clears: _Untyped,
    plane_steps: _Untyped,
    _first_plane: _Untyped,
    _n_planes: _Untyped,
    planes: _Untyped,
    bits: _Untyped,
) -> tuple[_Untyped, Callable[..., _Untyped]]:
    """Find the exit leaf of each row of a block for one tree: its plane and its bit there.

    Every row begins with all leaves. A step takes some leaves of one plane away from all rows
    whose rank is above the step's limit; the first leaf that a row keeps is its exit. A plane
    stays in vector registers while its steps pass; LLVM splits vectors of BLOCK_ROWS bytes into
    those that the CPU has. Written as LLVM because numba has no vector type, and because its
    loops over rows would load and store the plane again in every step.
    """
    arrays = (ranks, columns, limits, clears, plane_steps)
    signature = types.void(*arrays, types.int64, types.int64, planes, bits)
    return signature, _exits_code


def _exits_code(
    context: _Untyped, builder: _Untyped, signature: _Untyped, args: _Untyped
) -> _Untyped:
    """Emit the LLVM code of `_find_exits`."""
    ranks, columns, limits, clears, plane_steps, first_plane, n_planes, planes, bits = _pointers(
        context, builder, signature, args
    )
    lanes = _LANES.as_pointer()
    all_leaves, zero = (
        ir.Constant(_LANES, [255] * BLOCK_ROWS),
        ir.Constant(_LANES, [0] * BLOCK_ROWS),
    )

    kept = cgutils.alloca_once(builder, _LANES)
    exit_plane = cgutils.alloca_once_value(builder, zero)
    exit_leaves = cgutils.alloca_once(builder, _LANES)
    # From the last plane to the first, so that the first one with a leaf left has the last word.
    with cgutils.for_range(builder, n_planes, intp=_SIZE) as loop:
        plane = builder.sub(builder.sub(n_planes, _SIZE(1)), loop.index)
        steps = builder.gep(plane_steps, [builder.add(first_plane, plane)])
        first, last = (builder.sext(_element(builder, steps, _WORD(i)), _SIZE) for i in (0, 1))
        builder.store(all_leaves, kept)
        with cgutils.for_range_slice(builder, first, last, _SIZE(1), _SIZE) as (step, _):
            above = _above(builder, ranks, columns, limits, step)
            clear = _in_all_lanes(builder, _element(builder, clears, step))
            cleared = builder.and_(builder.sext(above, _LANES), clear)
            builder.store(builder.and_(builder.load(kept), builder.not_(cleared)), kept)
        has_leaves = builder.icmp_unsigned("!=", builder.load(kept), zero)
        for slot, value in (
            (exit_leaves, builder.load(kept)),
            (exit_plane, _in_all_lanes(builder, builder.trunc(plane, _BYTE))),
        ):
            builder.store(builder.select(has_leaves, value, builder.load(slot)), slot)
    builder.store(builder.load(exit_plane), builder.bitcast(planes, lanes), align=1)
    count_zeros = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(_LANES, [_LANES, ir.IntType(1)]),
        f"llvm.cttz.v{BLOCK_ROWS}i8",
    )
    first_bit = builder.call(count_zeros, [builder.load(exit_leaves), ir.IntType(1)(1)])
    builder.store(first_bit, builder.bitcast(bits, lanes), align=1)
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def _read_bits(
    _typing: _Untyped,
    ranks: _Untyped,
    columns: _Untyped,
    limits: _Untyped,
    first: _Untyped,
    end: _Untyped,
    bits: _Untyped,
) -> tuple[_Untyped, Callable[..., _Untyped]]:
    """What the levels from `first` to `end` answer for each row, the first one in the highest bit.

    At most 8 levels. The bits stay in vector registers, as the planes of `_find_exits` do.
    """
    return types.void(ranks, columns, limits, first, end, bits), _bits_code


def _bits_code(
    context: _Untyped, builder: _Untyped, signature: _Untyped, args: _Untyped
) -> _Untyped:
    """Emit the LLVM code of `_read_bits`."""
    ranks, columns, limits, first, end, bits = _pointers(context, builder, signature, args)
    read = cgutils.alloca_once_value(builder, ir.Constant(_LANES, [0] * BLOCK_ROWS))
    first, end = (
        context.cast(builder, each, kind, types.int64)
        for each, kind in zip((first, end), signature.args[3:5], strict=True)
    )
    with cgutils.for_range_slice(builder, first, end, _SIZE(1), _SIZE) as (level, _):
        above = _above(builder, ranks, columns, limits, level)
        doubled = builder.add(builder.load(read), builder.load(read))
        builder.store(builder.or_(doubled, builder.zext(above, _LANES)), read)
    builder.store(builder.load(read), builder.bitcast(bits, _LANES.as_pointer()), align=1)
    return context.get_dummy_value()


def _pointers(
    context: _Untyped, builder: _Untyped, signature: _Untyped, args: _Untyped
) -> list[_Untyped]:
    """The arguments, and for arrays where their data is."""
    return [
        context.make_array(kind)(context, builder, value).data
        if isinstance(kind, types.Array)
        else value
        for kind, value in zip(signature.args, args, strict=True)
    ]


def _above(
    builder: _Untyped, ranks: _Untyped, columns: _Untyped, limits: _Untyped, test: _Untyped
) -> _Untyped:
    """Which rows of a block have a rank above the limit of a test."""
    column = builder.sext(_element(builder, columns, test), _SIZE)
    first = builder.gep(ranks, [builder.mul(column, _SIZE(BLOCK_ROWS))])
    rank = builder.load(builder.bitcast(first, _LANES.as_pointer()), align=1)
    limit = _in_all_lanes(builder, _element(builder, limits, test))
    return builder.icmp_signed(">", rank, limit)


def _element(builder: _Untyped, array: _Untyped, index: _Untyped) -> _Untyped:
    return builder.load(builder.gep(array, [index]))


def _in_all_lanes(builder: _Untyped, value: _Untyped) -> _Untyped:
    undefined = ir.Constant(_LANES, ir.Undefined)
    first_lane = ir.Constant(ir.VectorType(_WORD, BLOCK_ROWS), [0] * BLOCK_ROWS)
    return builder.shuffle_vector(
        builder.insert_element(undefined, value, _WORD(0)), undefined, first_lane
    )
