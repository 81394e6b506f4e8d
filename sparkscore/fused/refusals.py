"""Why a pipeline is not fused, or a batch not scored by what was fused."""


class NotFusedError(ValueError):
    """A pipeline cannot be fused; says in one line why.

    Caught where runtimes are chosen: the pipeline itself then serves.
    """


class LeftToPipelineError(ValueError):
    """A batch holds what the pipeline itself shall answer, or refuse in its own words."""
