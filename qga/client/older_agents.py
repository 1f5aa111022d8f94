"""User and directory of programs for agents that support neither: QEMU's, and qga 0.1.

In the guest, setpriv(1) changes the user, env(1) sets the environment, and a shell changes the
directory. A script checks first whether this will work, so that the program is not started
otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qga.client.agent import GuestAgent
from qga.client.errors import AgentError, CommandError, ProtocolError
from qga.client.program_options import NO_LIMITS, Limits, ProgramOptions

# Seconds for the script, and characters of a line of its output in an error.
PATIENCE = 30.0
LONGEST_LINE = 1024

# $1: the user, or empty; $2: the group, or empty; $3: the directory, or empty. Prints the name, the
# IDs, home and shell of the user, if there is one.
LOOK = r"""
fail() { printf '%s\n' "$1" >&2; exit 1; }
as=
if [ "$1$2" ]; then
    user=${1:-$(id -u)}
    entry=$(getent passwd "$user") || fail "the user '$user' is unknown in this guest"
    IFS=: read -r name _ uid gid _ home shell <<END
$entry
END
    if [ "$2" ]; then
        gid=$(getent group "$2" | cut -d : -f 3)
        [ "$gid" ] || fail "the group '$2' is unknown in this guest"
    fi
    as="setpriv --reuid $uid --regid $gid --init-groups --"
    $as true 2>/dev/null ||
        fail "another user requires qga 0.2 or setpriv (util-linux) in the guest"
fi
if [ "$3" ]; then
    $as /bin/sh -c 'cd -- "$1"' sh "$3" 2>/dev/null ||
        fail "cannot enter the directory '$3'${name:+ as $name}"
fi
[ -z "$as" ] || printf '%s\n' "$name" "$uid" "$gid" "$home" "${shell:-/bin/sh}"
"""

ENTER = 'cd -- "$1" && shift && exec "$@"'


class Account(NamedTuple):
    name: str
    uid: str
    gid: str
    home: str
    shell: str


def wrapped_argv(
    agent: GuestAgent, argv: Sequence[str], options: ProgramOptions, has_environment: bool
) -> list[str]:
    """A command line that runs `argv` as that user, in that directory.

    has_environment: whether the program has its own environment, which is then left unchanged.
    Raises CommandError if there is no such user or directory, or the user cannot be changed.
    """
    if not (options.user or options.group or options.cwd):
        return list(argv)
    account = look(agent, options)
    words: list[str] = []
    if account:
        words += ["setpriv", "--reuid", account.uid, "--regid", account.gid, "--init-groups", "--"]
    if options.cwd:
        words += ["/bin/sh", "-c", ENTER, "sh", options.cwd]
    if account and not has_environment:
        name = account.name
        words += ["env", f"HOME={account.home}", f"SHELL={account.shell}"]
        words += [f"USER={name}", f"LOGNAME={name}"]
    return [*words, *argv]


def require_no_limits(agent: GuestAgent, limits: Limits | None) -> None:
    """Raise AgentError if there are limits, which these agents cannot set."""
    if limits not in (None, NO_LIMITS):
        reason = "limits require qga 0.2 or later in the guest"
        raise AgentError(reason, address=agent.address, command="exec")


def look(agent: GuestAgent, options: ProgramOptions) -> Account | None:
    """The user's account, if one is given. Raises CommandError if anything would not work."""
    wanted = [options.user or "", options.group or "", options.cwd or ""]
    script = ["/bin/sh", "-c", LOOK, "sh", *wanted]
    result = agent.exec_wait(agent.exec_start(script), PATIENCE)
    if result.status:
        reason = result.stderr[:LONGEST_LINE].decode(errors="replace").strip()
        raise CommandError("GenericError", reason or "cannot look up the user", "guest-exec")
    lines = result.stdout.decode(errors="replace").splitlines()
    if not (options.user or options.group):
        return None
    if len(lines) != len(Account._fields) or not (lines[1].isdecimal() and lines[2].isdecimal()):
        reason = f"the account of '{options.user or options.group}' cannot be read"
        raise ProtocolError(reason, address=agent.address, command="guest-exec")
    return Account(*lines)
