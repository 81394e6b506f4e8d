"""The tracking and registry server: MLflow's protocol over the stores; Starlette only here."""
