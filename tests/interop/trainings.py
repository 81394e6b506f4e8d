"""Trainings that are run under MLflow's autologging and under ours, and compared."""

from __future__ import annotations

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

random = np.random.default_rng(3)
rows = pd.DataFrame({"a": random.normal(size=150), "b": random.normal(size=150)})
values = rows["a"] * 2 + random.normal(size=150)
weights = np.linspace(0.5, 1.5, 150)

LogisticRegression(C=0.3).fit(rows, rows["a"] + 0.5 * values > 0)
LogisticRegression().fit(rows, np.where(values > 1, "high", np.where(rows["b"] > 0, "mid", "low")))
RandomForestRegressor(5, random_state=1).fit(rows, values, weights)
make_pipeline(StandardScaler(), Ridge(alpha=2.0)).fit(rows.to_numpy(), values)
GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3).fit(rows, values)
KMeans(2, random_state=0).fit(rows)

matrix = xgboost.DMatrix(rows.head(100), values.head(100))
held_out = xgboost.DMatrix(rows.tail(50), values.tail(50))
xgboost.train(
    {"max_depth": 4, "eta": 0.7, "nthread": 1},
    matrix,
    40,
    evals=[(matrix, "train"), (held_out, "eval")],
    early_stopping_rounds=3,
    verbose_eval=False,
)
train_set = lightgbm.Dataset(rows.head(100), values.head(100))
lightgbm.train(
    {"num_leaves": 8, "verbose": -1, "metric": ["l2", "l1"], "num_threads": 1},
    train_set,
    60,
    valid_sets=[train_set.create_valid(rows.tail(50), values.tail(50))],
    valid_names=["eval"],
    callbacks=[lightgbm.early_stopping(3, verbose=False)],
)
