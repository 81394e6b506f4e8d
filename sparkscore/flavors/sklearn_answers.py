"""What a scikit-learn model is asked: one of its methods, or a label and its probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparkscore.errors import PackageFormatError, listed
from sparkscore.fused.pipeline_steps import steps_of
from sparkscore.package.datatypes import ArrayType
from sparkscore.package.schema import ColumnSchema

if TYPE_CHECKING:
    from sparkscore.package.signature import Signature


class Answer(Protocol):
    """Asks a model, or its last step alone."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it asks, in the order of the columns."""
        ...

    def __call__(self, model: Any, rows: object) -> object:  # noqa: ANN401 - scikit-learn's
        """What the model says of `rows`: a frame, or the matrix that its last step is given."""
        ...


@dataclass(frozen=True)
class MethodAnswer:
    """The answer of one method.

    Attributes:
        as_lists: Whether a single number a row is a list of one, as the column of lists has it.
    """

    name: str
    as_lists: bool = False

    @property
    def methods(self) -> tuple[str, ...]:
        """The one."""
        return (self.name,)

    def __call__(self, model: Any, rows: object) -> object:  # noqa: ANN401 - scikit-learn's
        """What the method answers; see `Answer`."""
        answer = getattr(model, self.name)(rows)
        if self.as_lists and isinstance(answer, np.ndarray) and answer.ndim == 1:
            return answer.reshape(-1, 1)
        return answer


@dataclass(frozen=True)
class LabelAnswer:
    """A classifier's label and the probability of each class, from one pass over the rows.

    Attributes:
        label: Column of `predict`.
        probabilities: A column for each class in the order of `classes_`, or one of lists.
    """

    label: str
    probabilities: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """That of the label, and that of the probabilities."""
        return ("predict", "predict_proba")

    def __call__(self, model: Any, rows: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - untyped library
        """The columns by name; see `Answer`."""
        *steps, head = steps_of(model)
        for step in steps:
            rows = step.transform(rows)
        with _scored_once(head):
            labels, matrix = head.predict(rows), head.predict_proba(rows)
        columns = [matrix] if len(self.probabilities) == 1 else matrix.T
        return {self.label: labels, **dict(zip(self.probabilities, columns, strict=True))}


def answer_of(model: Any, predict_fn: str, signature: Signature) -> Answer:  # noqa: ANN401 - untyped library
    """What to ask `model` for the columns that its signature declares.

    A classifier whose `predict` fills several columns answers a label, and after it its
    probabilities: as one column of lists, or as a double for each class.

    Raises:
        PackageFormatError: The columns after the label are neither.
    """
    outputs, classes = signature.outputs, getattr(model, "classes_", None)
    if (
        predict_fn != "predict"
        or not (isinstance(classes, np.ndarray) and hasattr(model, "predict_proba"))
        or not isinstance(outputs, ColumnSchema)
        or len(outputs.columns) == 1
    ):
        # Of two classes, `decision_function` answers one number and not two.
        return MethodAnswer(predict_fn, predict_fn == "decision_function" and _is_list(outputs))
    label, *others = outputs.names
    is_list = len(others) == 1 and isinstance(outputs.columns[1].type, ArrayType)
    if not is_list and len(others) != len(classes):
        raise PackageFormatError(
            f"the signature declares {listed(others)} after the label {label!r}, but the "
            f"classifier has {len(classes)} classes; declare one column of lists, or a double for "
            "each class"
        )
    return LabelAnswer(label, tuple(others))


def _is_list(outputs: object) -> bool:
    """Whether a single column of lists is declared."""
    return (
        isinstance(outputs, ColumnSchema)
        and len(outputs.columns) == 1
        and isinstance(outputs.columns[0].type, ArrayType)
    )


@contextmanager
def _scored_once(head: Any) -> Iterator[None]:  # noqa: ANN401 - scikit-learn's
    """Let a classifier keep its scores between `predict` and `predict_proba` of the same rows."""
    name = _SCORED_BY.get(type(head).__name__)
    if name is None or not type(head).__module__.startswith("sklearn."):
        yield
        return
    before = vars(head).get(name)
    score = getattr(head, name)
    kept: list[np.ndarray] = []

    def scores(rows: object) -> np.ndarray:
        if not kept:
            kept.append(score(rows))
        # The caller may turn them into probabilities in place.
        return np.copy(kept[0], order="K")

    setattr(head, name, scores)
    try:
        yield
    finally:
        if before is None:
            delattr(head, name)
        else:
            setattr(head, name, before)


_SCORED_BY = {
    "ExtraTreesClassifier": "predict_proba",
    "GradientBoostingClassifier": "decision_function",
    "HistGradientBoostingClassifier": "_raw_predict",
    "LogisticRegression": "decision_function",
    "LogisticRegressionCV": "decision_function",
    "RandomForestClassifier": "predict_proba",
    "SGDClassifier": "decision_function",
}
"""The method that `predict` and `predict_proba` both start from."""
