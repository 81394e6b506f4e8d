"""One answer out of those of several models, column by column; imported by Python workers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import PredictionError, SignatureMismatchError
from sparkscore.scoring.casts import is_list


class Combine(StrEnum):
    """How several predictions become one.

    `mean`, `median` and `weighted` are of numbers, and of lists of them place by place; `vote` is
    of values of any kind, and of those with equally many votes the one wins whose first voter
    comes first among the members.
    """

    MEAN = "mean"
    MEDIAN = "median"
    VOTE = "vote"
    WEIGHTED = "weighted"


def combined_schema(predictions: pa.Schema, combine: Combine) -> pa.Schema:
    """The columns of an ensemble whose members have these predictions.

    Raises:
        SignatureMismatchError: A column holds no numbers, and `combine` computes.
    """
    if combine is Combine.VOTE:
        return predictions
    return pa.schema([pa.field(f.name, _double(f, f.type, combine)) for f in predictions])


def combined(
    answers: Sequence[pa.StructArray], combine: Combine, weights: Sequence[float]
) -> pa.StructArray:
    """One struct of predictions out of those of each member.

    Args:
        answers: One a member, n_rows each; all have the same columns.
        combine: How.
        weights: With `weighted`: one a member; their sum need not be 1.

    Returns:
        n_rows; null where a member has no answer, and a column null where one of theirs is.

    Raises:
        PredictionError: Members answered lists of different lengths.
    """
    names = answers[0].type.names
    columns = [
        _column([answer.field(name) for answer in answers], combine, weights) for name in names
    ]
    is_null = answers[0].is_null()
    for answer in answers[1:]:
        is_null = pc.or_(is_null, answer.is_null())
    return pa.StructArray.from_arrays(columns, names=names, mask=is_null)


def _double(column: pa.Field, kind: pa.DataType, combine: Combine) -> pa.DataType:
    if is_list(kind):
        return pa.list_(_double(column, kind.value_type, combine))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pa.float64()
    raise SignatureMismatchError(
        f"an ensemble takes the {combine.value} of numbers, but its members predict column "
        f"{column.name!r} as {column.type}; let them vote (ensemble.combine: vote), or ask them "
        "for probabilities (predict: predict_proba)"
    )


def _column(columns: Sequence[pa.Array], combine: Combine, weights: Sequence[float]) -> pa.Array:
    if combine is Combine.VOTE:
        return _voted(columns)
    is_null = columns[0].is_null()
    for column in columns[1:]:
        is_null = pc.or_(is_null, column.is_null())
    if is_list(columns[0].type):
        return _lists(columns, is_null, combine, weights)
    matrix = np.stack([_doubles(column) for column in columns])
    return pa.array(_numbers(matrix, combine, weights), mask=is_null.to_numpy(zero_copy_only=False))


def _numbers(
    matrix: np.ndarray[Any, Any], combine: Combine, weights: Sequence[float]
) -> np.ndarray[Any, Any]:
    if combine is Combine.MEDIAN:
        return np.asarray(np.median(matrix, axis=0))
    if combine is Combine.WEIGHTED:
        return np.asarray(np.average(matrix, axis=0, weights=weights))
    return np.asarray(matrix.mean(axis=0))


def _doubles(column: pa.Array) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return values


def _lists(
    columns: Sequence[pa.Array], is_null: pa.Array, combine: Combine, weights: Sequence[float]
) -> pa.Array:
    """Lists of numbers, place by place; null where one of them is."""
    valid = pc.invert(is_null)
    kept = [column.filter(valid) for column in columns]
    lengths = [pc.list_value_length(column) for column in kept]
    if any(not length.equals(lengths[0]) for length in lengths[1:]):
        raise PredictionError(
            "the members of an ensemble answered lists of different lengths, which have no "
            f"{combine.value}; take members that predict as many values"
        )
    values = _column([column.flatten() for column in kept], combine, weights)
    offsets = np.concatenate([[0], np.cumsum(lengths[0].to_numpy(zero_copy_only=False))])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    places = pc.subtract(pc.cumulative_sum(valid.cast(pa.int64())), 1)
    return lists.take(pc.if_else(valid, places, None))


def _voted(columns: Sequence[pa.Array]) -> pa.Array:
    """The value that most members answered for each row."""
    n_rows = len(columns[0])
    ballots = pa.concat_arrays(columns)
    if is_list(ballots.type) or pa.types.is_struct(ballots.type):
        codes = _codes_of_nested(ballots)
    else:
        codes = ballots.dictionary_encode(null_encoding="encode").indices.to_numpy()
    by_member = codes.reshape(len(columns), n_rows)
    n_votes = np.stack([(by_member == one).sum(axis=0) for one in by_member])
    winner = n_votes.argmax(axis=0)  # The first of those with the most.
    return ballots.take(pa.array(winner * n_rows + np.arange(n_rows)))


def _codes_of_nested(ballots: pa.Array) -> np.ndarray[Any, Any]:
    known: dict[str, int] = {}
    return np.array([known.setdefault(repr(one.as_py()), len(known)) for one in ballots])
