"""Scoring without Spark: what to score (plan), how a batch is scored, and how a run is accounted for."""
