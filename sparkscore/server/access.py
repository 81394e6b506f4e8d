"""Lets a call be made if its caller has the roles that the route asks for, and keeps the trail."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sparkscore.accounts import Caller, Grant, Resource, Role
from sparkscore.server.calls import Call, Outcome, RefusedError, Served
from sparkscore.server.decisions import DECISIONS
from sparkscore.server.sign_in import CALLER
from sparkscore.stores.accounts_base import AccountStore
from sparkscore.wire.records_to_json import Json
from sparkscore.wire.statuses import Fault

_OK = 200
_FORBIDDEN = 403
_CREATES = {
    "create_experiment": (Resource.EXPERIMENT, Role.LOG),
    "create_registered_model": (Resource.MODEL, Role.REGISTER),
}
_LISTS = {
    "search_experiments": ("experiments", Resource.EXPERIMENT, "experiment_id"),
    "search_registered_models": ("registered_models", Resource.MODEL, "name"),
    "search_versions": ("model_versions", Resource.MODEL, "name"),
}
# Besides these, each route whose name says that something new, renamed or gone is its work.
_AUDITED = (
    "set_alias",
    "move_version",
    "update_version",
    "update_registered_model",
    "update_webhook",
    "test_webhook",
)
_AUDITED_VERBS = ("create_", "delete_", "restore_", "purge_", "rename_", "update_experiment")
_NOT_AUDITED = ("create_run", "create_logged_model", "delete_tag", "delete_logged_model_tag")
_SUBJECT = (
    "experiment_id",
    "run_id",
    "model_id",
    "webhook_id",
    "name",
    "new_name",
    "version",
    "alias",
    "stage",
    "source",
    "path",
)


class Access:
    """A guard: asks for roles before a call, and writes what came of it into the audit trail."""

    def __init__(self, served: Served, accounts: AccountStore) -> None:
        self._served = served
        self._accounts = accounts

    def before(self, call: Call) -> None:
        """See Guard."""
        caller = _caller_of(call)
        created = _CREATES.get(call.route.name)
        if created is not None and caller.ceiling < created[1]:
            raise _forbidden(caller, *created, "")
        for resource, name, role in DECISIONS[call.route.name](self._served, call.given):
            if not caller.may(resource, name, role):
                raise _forbidden(caller, resource, role, name)

    def after(self, call: Call, outcome: Outcome) -> Json | None:
        """See Guard."""
        caller, route = _caller_of(call), call.route.name
        if outcome.status == _FORBIDDEN or (outcome.status == _OK and _is_audited(route)):
            self._accounts.append_audit(
                actor=caller.user, action=route, subject=_subject(call), status=outcome.status
            )
        if outcome.status != _OK or outcome.answer is None:
            return None
        self._follow(call, caller, outcome.answer)
        return _readable(route, caller, outcome.answer)

    def _follow(self, call: Call, caller: Caller, answer: Json) -> None:
        """Let grants follow what was made, renamed or removed."""
        route, given = call.route.name, call.given
        if route == "create_experiment":
            self._make_admin(caller, Resource.EXPERIMENT, str(answer["experiment_id"]))
        elif route == "create_registered_model":
            self._make_admin(caller, Resource.MODEL, given.text("name"))
        elif route == "rename_registered_model":
            new_name = given.text("new_name")
            self._accounts.move_grants(Resource.MODEL, given.text("name"), new_name)
        elif route == "delete_registered_model":
            self._accounts.move_grants(Resource.MODEL, given.text("name"), None)
        elif route == "purge_experiment":
            self._accounts.move_grants(Resource.EXPERIMENT, given.text("experiment_id"), None)

    def _make_admin(self, caller: Caller, resource: Resource, name: str) -> None:
        if not caller.is_admin:
            self._accounts.set_grant(caller.user, Grant(resource, name, Role.ADMIN))


def _caller_of(call: Call) -> Caller:
    caller = call.scope["state"][CALLER]
    assert isinstance(caller, Caller)
    return caller


def _forbidden(caller: Caller, resource: Resource, role: Role, name: str) -> RefusedError:
    return RefusedError(
        Fault(
            "PERMISSION_DENIED",
            f"user {caller.user!r} needs the role {role} for {resource} {name or 'creation'!r}: an "
            f"administrator gives it by `sparkscore users grant {caller.user}`"
            + (", and the token must not be below it" if caller.ceiling < Role.ADMIN else ""),
        )
    )


def _is_audited(route: str) -> bool:
    return route in _AUDITED or (route.startswith(_AUDITED_VERBS) and route not in _NOT_AUDITED)


def _subject(call: Call) -> str:
    """What a call was about, as JSON."""
    repeated = {member.name for member in call.route.request.members if member.repeated}
    given = [name for name in _SUBJECT if name in call.given]
    known = {
        name: call.given.texts(name) if name in repeated else call.given.text(name)
        for name in given
    }
    return json.dumps({name: value for name, value in known.items() if value}, sort_keys=True)


def _readable(route: str, caller: Caller, answer: Json) -> Json | None:
    """A list without what its caller may not read."""
    if route not in _LISTS:
        return None
    field, resource, key = _LISTS[route]
    items = answer.get(field)
    if not isinstance(items, list):
        return None
    kept = [
        item
        for item in items
        if isinstance(item, Mapping) and caller.may(resource, str(item[key]), Role.READ)
    ]
    return {**answer, field: kept}
