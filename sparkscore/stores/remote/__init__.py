"""Records and files on a tracking server, ours or MLflow's, over HTTP; httpx only here."""

from __future__ import annotations

from dataclasses import dataclass

from sparkscore.stores.remote.artifacts import RemoteArtifactStore
from sparkscore.stores.remote.logged_models import RemoteLoggedModelStore
from sparkscore.stores.remote.models import RemoteModelStore
from sparkscore.stores.remote.runs import RemoteRunStore
from sparkscore.stores.remote.server import Access, RemoteServer

__all__ = ["Access", "RemoteStores", "open_remote"]


@dataclass(frozen=True)
class RemoteStores:
    """The stores of one server."""

    server: RemoteServer
    runs: RemoteRunStore
    models: RemoteModelStore
    logged_models: RemoteLoggedModelStore

    @classmethod
    def of(cls, server: RemoteServer) -> RemoteStores:
        """The stores of a server."""
        runs, models = RemoteRunStore(server), RemoteModelStore(server)
        return cls(server, runs, models, RemoteLoggedModelStore(server))

    def artifacts_at(self, uri: str) -> RemoteArtifactStore:
        """The files below an `mlflow-artifacts:` URI.

        Raises:
            InvalidNameError: It is of another server.
        """
        return RemoteArtifactStore.at(uri, self.server)


def open_remote(uri: str, access: Access) -> RemoteStores:
    """The stores of the server at a URI; nothing is sent yet.

    Raises:
        InvalidNameError: The URI is no address of a server.
    """
    return RemoteStores.of(RemoteServer(uri, access))
