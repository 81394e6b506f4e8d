"""What an operator may set of the server, with a reason for each default."""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL_VERSION = "3.17.2"
"""The release of MLflow whose protocol is spoken: what `/version` answers, since clients compare it
with releases of MLflow and not with ours."""


@dataclass(frozen=True)
class ServerSettings:
    """How the server answers, whatever it is bound to.

    Attributes:
        static_prefix: What all paths stand below, such as `/tracking`; empty: nothing.
        allowed_hosts: Further names, with `*` for any part, by which it may be asked; a browser
            that was led to a strange name for this address must not read from it.
        allowed_origins: Pages of which other origins may write; none are needed by clients.
        expose_metrics: Answer `/metrics`, which tells how much is done, to all who may connect.
        serves_artifacts: Tell clients that all files in the served store go through the server.
        artifacts_only: Answer for files alone, and refuse what is about records.
        lenient_sources: Take a model version's source that the request's run or logged model does
            not hold, as MLflow 3.12 did.
        source_pattern: A regular expression that every version's source must match; empty: any.
        max_upload_bytes: The largest file through the proxy; None: as much as the disk holds.
        cut_long_values: Cut params and tags of runs that are too long, and name them in the run's
            tag `sparkscore.cut`, as clients of MLflow rely on; else they are refused.
    """

    static_prefix: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    expose_metrics: bool = False
    serves_artifacts: bool = True
    artifacts_only: bool = False
    lenient_sources: bool = False
    source_pattern: str = ""
    max_upload_bytes: int | None = None
    cut_long_values: bool = True
