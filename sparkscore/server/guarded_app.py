"""The server with its doors: callers are asked who they are, and what they may do is looked up."""

from __future__ import annotations

from starlette.types import ASGIApp

from sparkscore.server.access import Access
from sparkscore.server.calls import Served
from sparkscore.server.sign_in import SignIn
from sparkscore.server.tracking_app import tracking_app
from sparkscore.stores.accounts_base import AccountStore


def guarded_app(served: Served, accounts: AccountStore) -> ASGIApp:
    """`tracking_app` for the users of `accounts` alone."""

    def sign_in(app: ASGIApp) -> ASGIApp:
        return SignIn(app, accounts, served.clock, served.settings.static_prefix)

    return tracking_app(served, [Access(served, accounts)], [sign_in])
