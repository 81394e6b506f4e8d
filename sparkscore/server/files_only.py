"""A server for files alone: what is about records is asked of another one."""

from __future__ import annotations

from sparkscore.server.calls import Call, Outcome, RefusedError
from sparkscore.wire.records_to_json import Json
from sparkscore.wire.routes import Base
from sparkscore.wire.statuses import Fault

_ALSO = ("get_server_info",)


class FilesOnly:
    """A guard that admits the routes of stored files, and no others."""

    def before(self, call: Call) -> None:
        """See Guard."""
        route = call.route
        if route.base is not Base.ARTIFACTS and route.name not in _ALSO:
            raise RefusedError(
                Fault(
                    "ENDPOINT_NOT_FOUND",
                    f"{route.name} is disabled: this server runs with --artifacts-only and keeps "
                    "files alone; ask the tracking server",
                )
            )

    def after(self, call: Call, outcome: Outcome) -> Json | None:
        """See Guard."""
