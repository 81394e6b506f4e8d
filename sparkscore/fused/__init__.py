"""The common steps of scikit-learn's pipelines, filled into one matrix straight from Arrow.

Equal to the steps themselves to the bit, or refused by name.
"""
