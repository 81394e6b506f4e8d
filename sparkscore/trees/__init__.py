"""Trees of any library in one flat form, and compiled kernels that score them exactly.

Readers (`lightgbm_text`, `sklearn_trees`) make a `Forest`; `scorer` scores matrices with it.
Nothing here knows Spark, pandas or Arrow, and numba is loaded when the first scorer is made.
"""
