"""User accounts in the guest: passwords and authorized ssh keys."""

import sys
from enum import Enum
from typing import NamedTuple, Optional

import typer

from qga.client.agent import GuestAgent
from qga.ctl import display
from qga.ctl.app import answer, command
from qga.ctl.command import ACCOUNTS
from qga.ctl.guest_words import Line, Surroundings, first_word
from qga.ctl.settings import Settings
from qga.ctl.sshkeys import Key, parse_key, read_keys, same_keys
from qga.ctl.standard_input import first_line
from qga.ctl.tables import printable, show_table
from qga.ctl.terminal import ended_in_order


class Account(NamedTuple):
    user: str


class Action(str, Enum):
    """What to do with a user's keys."""

    LIST = "list"
    ADD = "add"
    REMOVE = "remove"


def is_user(words: list[str], _line: Line, _surroundings: Surroundings) -> bool:
    return len(words) < 2


@command(ACCOUNTS, first_word("GUEST USER", is_user))
def passwd(
    context: typer.Context,
    user: str = typer.Argument(
        ..., metavar="USER", help="The user's name in the guest.", show_default=False
    ),
    stdin: bool = typer.Option(False, "--stdin", help="Read the password from standard input."),
    crypted: bool = typer.Option(
        False, "--crypted", help="The password is a hash, as printed by `openssl passwd -6`."
    ),
) -> None:
    """Set a user's password.

    qgactl prompts for it twice and does not echo it, unless --stdin is given.

    \b
    Examples:
      qgactl passwd web root
      pwgen 20 1 | qgactl passwd web alice --stdin
      openssl passwd -6 | qgactl passwd web alice --crypted --stdin
    """
    settings: Settings = context.obj
    password = read_password() if stdin else ask_password(crypted)

    def change(agent: GuestAgent) -> Account:
        agent.set_password(user, password, crypted=crypted)
        return Account(user)

    answer(context, change, lambda _: display.confirm(f"{settings.guest}: password of {user} set"))


def read_password() -> bytes:
    # One line, as chpasswd(8); a password may be of any bytes.
    try:
        return first_line("password").rstrip(b"\r\n")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def ask_password(crypted: bool) -> bytes:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "there is no terminal to prompt on; pass the password to standard input and add --stdin"
        )
    question = "Hash of the new password" if crypted else "New password"
    # On stderr, because stdout may be a file.
    try:
        with ended_in_order():
            answered: str = typer.prompt(
                question, hide_input=True, confirmation_prompt=True, err=True
            )
        return answered.encode()
    except UnicodeError:
        raise typer.BadParameter("what was typed is not UTF-8 text; use --stdin") from None


def is_action(words: list[str], _line: Line, _surroundings: Surroundings) -> bool:
    return words[0] in set(Action) or words[1:2] == [] or words[1] not in set(Action)


@command(ACCOUNTS, first_word("GUEST list|add|remove USER [FILE]...", is_action), name="ssh-keys")
def ssh_keys(
    context: typer.Context,
    action: Action = typer.Argument(
        ..., metavar="list|add|remove", help="List the keys, add some, or remove some."
    ),
    user: str = typer.Argument(
        ..., metavar="USER", help="The user's name in the guest.", show_default=False
    ),
    files: Optional[list[str]] = typer.Argument(
        None, metavar="FILE", help="Files with public keys; - is standard input."
    ),
    reset: bool = typer.Option(False, "--reset", help="With add: remove all other keys."),
) -> None:
    """List, add or remove a user's authorized ssh keys.

    A key is removed whatever its comment and options are. The keys that remain are listed.

    \b
    Examples:
      qgactl ssh-keys web list root
      qgactl ssh-keys web add root ~/.ssh/id_ed25519.pub
      ssh-add -L | qgactl ssh-keys web add alice - --reset
      qgactl ssh-keys web remove root old.pub
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
    """The keys to add or remove. Raises BadParameter."""
    if reset and action is not Action.ADD:
        raise typer.BadParameter("--reset can only be used with add")
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
