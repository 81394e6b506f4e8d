"""Trainings of scikit-learn, xgboost and LightGBM, recorded without a line of the user's own."""

from __future__ import annotations

from sparkscore.autologging.switch import autolog

__all__ = ["autolog"]
