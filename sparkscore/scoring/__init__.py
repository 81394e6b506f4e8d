"""Scoring without Spark: the plan, how a batch is scored, and the account of a run."""
