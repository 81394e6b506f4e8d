from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from sparkscore.flavors.forests import forest_of
from sparkscore.trees.forest import Forest
from sparkscore.trees.probes import tie_rows

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(300, 3))


@pytest.fixture(scope="module")
def forest() -> Forest:
    target = ROWS[:, 0] + ROWS[:, 2]
    rows = np.column_stack([ROWS[:, 0], np.zeros(300), ROWS[:, 2]])  # No tree looks at the second.
    model = RandomForestRegressor(5, max_depth=4, random_state=0).fit(rows, target)
    found = forest_of(model)
    assert found is not None
    return found


def test_every_threshold_is_met_and_its_neighbours_on_both_sides(forest: Forest) -> None:
    made = tie_rows(forest, ROWS, 20_000)
    for feature in (0, 2):
        for threshold in np.unique(forest.threshold[forest.feature == feature]):
            single = np.float32(threshold)
            wanted = [
                threshold,
                *(np.nextafter(threshold, side) for side in (-np.inf, np.inf)),
                *(np.nextafter(single, np.float32(side)) for side in (-np.inf, np.inf)),
            ]
            assert np.isin(wanted, made[:, feature]).all()


def test_half_of_the_rows_have_one_other_value_than_a_real_row(forest: Forest) -> None:
    made = tie_rows(forest, ROWS, 1000)
    real = np.stack([np.isin(made[:, i], ROWS[:, i]) for i in range(3)], axis=1)
    assert real[:, 1].all()
    assert (real[::2].sum(axis=1) == 2).all()
    assert (real[1::2].sum(axis=1) == 1).all()


def test_the_same_forest_has_the_same_rows(forest: Forest) -> None:
    assert tie_rows(forest, ROWS, 100).tobytes() == tie_rows(forest, ROWS, 100).tobytes()
