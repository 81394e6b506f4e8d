"""`sparkscore tokens`: what programs sign in with at a server, in the place of a password."""

from __future__ import annotations

import click

from sparkscore.accounts import Token, new_token, parse_role
from sparkscore.cli.context import note, open_workspace
from sparkscore.cli.output import Output, output_option, show, utc
from sparkscore.stores.base import system_clock

_COLUMNS = ("token_id", "role", "created", "expires")
_DAY_MS = 24 * 60 * 60 * 1000


@click.group()
def command() -> None:
    """Tokens of the server whose database tracking.uri names."""


@command.command("create")
@click.argument("user")
@click.option("--role", default="log", show_default=True, help="The most that it may do.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True)
def create(user: str, role: str, days: int) -> None:
    """A new token, on stdout; it is shown once, and works as MLFLOW_TRACKING_TOKEN."""
    accounts = open_workspace().accounts
    text, token_id, digest = new_token()
    now = system_clock()
    accounts.add_token(Token(token_id, user, digest, parse_role(role), now, now + days * _DAY_MS))
    subject = f"{user}: {token_id}, {role}, {days} days"
    accounts.append_audit(actor="", action="tokens create", subject=subject, status=0)
    note(f"token {token_id} of {user} may {role} for {days} days")
    click.echo(text)


@command.command("list")
@click.argument("user")
@output_option
def list_tokens(user: str, output: Output) -> None:
    """A user's tokens, without their secrets."""
    rows = [
        {
            "token_id": token.token_id,
            "role": str(token.role),
            "created": utc(token.creation_time_ms),
            "expires": utc(token.expires_ms),
        }
        for token in open_workspace().accounts.list_tokens(user)
    ]
    show(rows, _COLUMNS, output)


@command.command("delete")
@click.argument("token_id")
def delete(token_id: str) -> None:
    """Remove a token, which is refused from then on."""
    accounts = open_workspace().accounts
    accounts.delete_token(token_id)
    accounts.append_audit(actor="", action="tokens delete", subject=token_id, status=0)
    note(f"removed token {token_id}")
