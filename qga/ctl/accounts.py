"""Accounts of the guest: passwords, and the keys that may log in by ssh."""

import sys
from enum import Enum
from typing import NamedTuple, Optional

import typer

from qga.client.agent import GuestAgent
from qga.ctl.app import JSON, Settings, answer, app
from qga.ctl.sshkeys import Key, parse_key, read_keys, same_keys
from qga.ctl.tables import printable, show_table


class Account(NamedTuple):
    user: str


class Action(str, Enum):
    """What to do with a user's keys."""

    LIST = "list"
    ADD = "add"
    REMOVE = "remove"


@app.command()
def passwd(
    context: typer.Context,
    user: str = typer.Argument(..., metavar="USER", help="The account's name.", show_default=False),
    stdin: bool = typer.Option(False, "--stdin", help="Read the password from standard input."),
    crypted: bool = typer.Option(
        False, "--crypted", help="It is a hash already, as `openssl passwd -6` makes it."
    ),
    as_json: bool = JSON,
) -> None:
    """Set a password of an account of the guest. It is asked for, twice, and not shown.

    \b
    Examples:
      qgactl passwd root
      pwgen 20 1 | qgactl passwd --stdin alice
      openssl passwd -6 | qgactl passwd --crypted --stdin alice
    """
    settings: Settings = context.obj
    password = read_password() if stdin else ask_password(crypted)

    def change(agent: GuestAgent) -> Account:
        agent.set_password(user, password, crypted=crypted)
        return Account(user)

    line = printable(f"{settings.address}: the password of {user} is set")
    answer(context, change, lambda _: print(line))


def read_password() -> bytes:
    password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    if not password:
        raise typer.BadParameter("there is no password on standard input")
    return password


def ask_password(crypted: bool) -> bytes:
    if not sys.stdin.isatty():
        raise typer.BadParameter("without a terminal to ask on, give the password with --stdin")
    question = "Hash of the new password" if crypted else "New password"
    answered: str = typer.prompt(question, hide_input=True, confirmation_prompt=True, err=True)
    return answered.encode()


@app.command(name="ssh-keys")
def ssh_keys(
    context: typer.Context,
    action: Action = typer.Argument(..., metavar="list|add|remove", help="What to do."),
    user: str = typer.Argument(..., metavar="USER", help="The account's name.", show_default=False),
    files: Optional[list[str]] = typer.Argument(
        None, metavar="FILE", help="Public keys; - is standard input."
    ),
    reset: bool = typer.Option(False, "--reset", help="With add: take all others away."),
    as_json: bool = JSON,
) -> None:
    """Show the ssh keys that may log in to an account of the guest, after adding or removing some.

    A key is removed whatever its comment and options are.

    \b
    Examples:
      qgactl ssh-keys list root
      qgactl ssh-keys add root ~/.ssh/id_ed25519.pub
      ssh-add -L | qgactl ssh-keys add --reset alice -
      qgactl ssh-keys remove root old.pub
    """
    keys = given_keys(action, files or [], reset)

    def change(agent: GuestAgent) -> list[Key]:
        if action is Action.ADD:
            agent.add_ssh_keys(user, [key.line for key in keys], reset=reset)
        elif action is Action.REMOVE:
            agent.remove_ssh_keys(user, same_keys(agent.ssh_keys(user), keys))
        return [parse_key(line) for line in agent.ssh_keys(user)]

    answer(context, change, show_keys)


def given_keys(action: Action, files: list[str], reset: bool) -> list[Key]:
    """The keys to add or remove; wrong usage is told."""
    if reset and action is not Action.ADD:
        raise typer.BadParameter("--reset is only for add")
    if bool(files) is (action is Action.LIST) and not reset:
        wants = "no files" if files else "a FILE with public keys, or - for standard input"
        raise typer.BadParameter(f"{action.value} takes {wants}")
    try:
        return list(read_keys(files))
    except ValueError as error:
        raise typer.BadParameter(printable(str(error))) from None


def show_keys(keys: list[Key]) -> None:
    rows = (
        (key.type, key.fingerprint, key.comment or "") if key.type else (key.line, None, "")
        for key in keys
    )
    show_table(("Type", "Fingerprint", "Comment"), rows)
