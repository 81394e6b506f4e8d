"""`sparkscore users`: who may sign in at a server, and what they may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

import click

from sparkscore.accounts import (
    EVERYTHING,
    Grant,
    Resource,
    User,
    hash_password,
    listed_grants,
    parse_role,
    parse_user,
)
from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, show_record, utc
from sparkscore.errors import RecordNotFoundError, UsageError, shown
from sparkscore.names import parse_model_name

_COLUMNS = ("name", "admin", "created")


@click.group()
def command() -> None:
    """Users of the server whose database tracking.uri names."""


@command.command("create")
@click.argument("name")
@click.option("--admin", is_flag=True, help="May do everything.")
@click.option("--password-file", type=click.File(encoding="utf-8"), help="- reads it from stdin.")
def create(name: str, admin: bool, password_file: TextIO | None) -> None:
    """A new user; the password is asked for, or read from a file's first line."""
    workspace = open_workspace()
    password = _password(password_file)
    workspace.accounts.create_user(parse_user(name), hash_password(password), is_admin=admin)
    workspace.accounts.append_audit(actor="", action="users create", subject=name, status=0)
    note(f"created user {name}" + (", an administrator" if admin else ""))


@command.command("list")
@output_option
def list_users(output: Output) -> None:
    """All users."""
    show([_row(user) for user in open_workspace().accounts.list_users()], _COLUMNS, output)


@command.command("show")
@click.argument("name")
@output_option
def show_user(name: str, output: Output) -> None:
    """One user, and what they were given."""
    accounts = open_workspace().accounts
    user = accounts.find_user(name)
    if user is None:
        raise RecordNotFoundError(
            f"there is no user {shown(name)}; `sparkscore users list` shows them"
        )
    show_record(_row(user) | {"grants": listed_grants(accounts.grants_of(name))}, output)


@command.command("password")
@click.argument("name")
@click.option("--password-file", type=click.File(encoding="utf-8"), help="- reads it from stdin.")
def change_password(name: str, password_file: TextIO | None) -> None:
    """Give a user another password; what knew the old one is refused at once."""
    accounts = open_workspace().accounts
    accounts.change_user(name, password_hash=hash_password(_password(password_file)))
    accounts.append_audit(actor="", action="users password", subject=name, status=0)
    note(f"changed the password of {name}")


@command.command("delete")
@click.argument("name")
def delete(name: str) -> None:
    """Remove a user, with tokens and grants."""
    accounts = open_workspace().accounts
    accounts.delete_user(name)
    accounts.append_audit(actor="", action="users delete", subject=name, status=0)
    note(f"removed user {name}")


def _resource_options(decorated: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--experiment", metavar="ID", help="One experiment; * for all."),
        click.option("--model", metavar="NAME", help="One registered model; * for all."),
    )
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@command.command("grant")
@click.argument("name")
@click.argument("role", metavar="read|log|register|promote|admin")
@_resource_options
def grant(name: str, role: str, experiment: str | None, model: str | None) -> None:
    """Give a user a role for an experiment or a model; each role holds those before it."""
    workspace = open_workspace()
    resource, of = _resource(experiment, model)
    if of != EVERYTHING:
        if resource is Resource.EXPERIMENT:
            workspace.runs.get_experiment(of)
        else:
            workspace.registry.get_model(parse_model_name(of))
    given = Grant(resource, of, parse_role(role))
    workspace.accounts.set_grant(name, given)
    subject = f"{name}: {listed_grants([given])}"
    workspace.accounts.append_audit(actor="", action="users grant", subject=subject, status=0)
    note(f"{name} may {given.role} {resource} {of}")


@command.command("revoke")
@click.argument("name")
@_resource_options
def revoke(name: str, experiment: str | None, model: str | None) -> None:
    """Take a user's role for an experiment or a model away."""
    accounts = open_workspace().accounts
    resource, of = _resource(experiment, model)
    accounts.delete_grant(name, resource, of)
    subject = f"{name}: {resource} {of}"
    accounts.append_audit(actor="", action="users revoke", subject=subject, status=0)
    note(f"{name} has no role for {resource} {of} any more")


def _resource(experiment: str | None, model: str | None) -> tuple[Resource, str]:
    if (experiment is None) is (model is None):
        raise UsageError("say one of --experiment and --model")
    if experiment is not None:
        return Resource.EXPERIMENT, experiment
    assert model is not None
    return Resource.MODEL, model


def _password(file: TextIO | None) -> str:
    if file is not None:
        return file.readline().rstrip("\r\n")
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return asked


def _row(user: User) -> dict[str, object]:
    return {"name": user.name, "admin": user.is_admin, "created": utc(user.creation_time_ms)}
