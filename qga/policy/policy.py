"""The policy of a channel: what the administrator of this guest allows the host to do.

Commands are checked against allow-rpcs, block-rpcs, the profile and, while filesystems are frozen,
the list of safe commands. Clients skip a refused command only by the class of the error, so a
command that is disabled is CommandNotFound. Arguments are checked by the handlers, because paths
may only be resolved on a worker. They have no other way to open files, start programs
or connect to a service:

    caller.policy.open_file(path, flags)     returns a descriptor
    caller.policy.program(path, arg, env)    returns how to start a program
    caller.policy.check_account(username)    to be called before an account is changed
    caller.policy.addresses(host, port)      returns the addresses to connect to
    caller.policy.socket(path)               returns a descriptor to connect through

Each raises Refused. Without rules they cost next to nothing, and so does `check`.

A refusal must not reveal whether the file exists or what it is: the reason quotes the path as the
request had it. The real path is only for the guest's own log and --explain-policy
(`Verdict.detail`). `..` removes the component before it without looking at it: otherwise
/etc/x/../../ALLOWED would reveal whether there is a directory /etc/x.
"""

from __future__ import annotations

import os

from qga.errors import CommandDisabled, CommandNotFound
from qga.policy.rules import Rules, Setting, Verdict, require
from qga.records import NamedTuple
from qga.settings.config import ChannelConfig
from qga.settings.values import PROFILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import Any, Callable, Protocol

    from qga.policy.connect_rules import Address
    from qga.policy.file_rules import FileRules
    from qga.policy.launch import Wanted
    from qga.programs.spawn import Launch

    class Named(Protocol):
        """The traits of a command that a policy depends on."""

        @property
        def name(self) -> str: ...

        @property
        def access(self) -> str: ...

        @property
        def like(self) -> tuple[str, ...]: ...

    class Asked(Named, Protocol):
        """The same for a command that is called."""

        @property
        def frozen(self) -> bool: ...


_LEVEL_TO_WRITE = PROFILES.index("file-write")
_NO_RULES = ChannelConfig("main", "", "")

_NO_DIRECTORY = "a program allowed by [exec] allow runs in the agent's own directory"
_NO_TERMINAL = (
    "a program allowed by [exec] allow gets no terminal, because pagers and editors can start a "
    "shell from one; set [exec] terminal=true to allow it"
)

# Distributions have them in their lists for Linux guests, too.
_COMMANDS_OF_WINDOWS = ("guest-get-devices", "guest-get-driver-packages")
_LONG_NAME = 13  # letters; in shorter names, two edits lead to another command

_WAYS_TO_LOG_IN = ("guest-set-user-password", "guest-ssh-add-authorized-keys")


class Unknown(NamedTuple):
    """An unknown name in a list of commands, a message, and whether the agent must not start."""

    name: str
    text: str
    stops: bool


class Policy:
    """The rules of one channel."""

    def __init__(self, config: ChannelConfig = _NO_RULES) -> None:
        self.limits = config
        self._config = config
        self._level = PROFILES.index(config.profile)
        self._allow = frozenset(config.allow_rpcs)
        self._block = frozenset(config.block_rpcs)
        self._names_commands = bool(self._allow or self._block or config.profile != PROFILES[-1])
        self._rules: dict[str, Rules] = {}
        self._files: FileRules | None = None
        self._starts_anything = all(
            getattr(config, key) is None for key in config._fields if key.startswith("exec_")
        )
        self._compile()

    def allows(self, command: Asked, frozen: bool) -> bool:
        """Whether the channel may call `command`; `frozen`: whether filesystems are frozen."""
        if frozen and not command.frozen:
            return False
        return not self._names_commands or self.judge_command(command).allowed

    def check(self, command: Asked, frozen: bool) -> None:
        """Raise CommandNotFound if `allows` is false."""
        if frozen and not command.frozen:
            raise CommandNotFound(_disabled(command))
        if self._names_commands:
            verdict = self.judge_command(command)
            if not verdict.allowed:
                raise CommandDisabled(_disabled(command), verdict.rule)

    def judge_command(self, command: Named) -> Verdict:
        """The verdict of the lists of commands and the profile."""
        name, config = command.name, self._config
        # A list written for QEMU's agent names guest-exec, but not qga-exec.
        for blocked in (name, *command.like):
            if blocked in self._block:
                return self._by_list(False, blocked, "block-rpcs", config.block_rpcs, name)
        if self._allow and name not in self._allow:
            rule = self._setting("allow-rpcs").line(",".join(config.allow_rpcs))
            return Verdict(False, f"{name} is not in {self._setting('allow-rpcs').name}", rule)
        if not self._includes(command.access):
            return self._by_profile(False, f"{name} needs profile={command.access}")
        if self._allow:
            return self._by_list(True, name, "allow-rpcs", config.allow_rpcs)
        return self._by_profile(True, f"{name} needs no more than profile={command.access}")

    def unknown_names(self, known: Collection[str]) -> Iterator[Unknown]:
        """The names in lists of commands that are not in `known`, the commands of this guest.

        The command of a plugin that is not installed does no harm. A misspelt name, though, leaves
        a command enabled that was meant to be blocked.
        """
        from qga.settings.spelling import nearest

        config = self._config
        for key, names in (("block-rpcs", config.block_rpcs), ("allow-rpcs", config.allow_rpcs)):
            for index, name in enumerate(names):
                if name in known or name in _COMMANDS_OF_WINDOWS:
                    continue
                text = f"{self._setting(key).line(name, index)}: unknown command '{name}'"
                short = next((full for full in known if full.partition("-")[2] == name), None)
                meant = short or nearest(name, known, _LONG_NAME)
                if not all(letter.isalnum() or letter in "-_." for letter in name):
                    yield Unknown(name, f"{text}; use full names, separated by commas", True)
                elif meant:
                    yield Unknown(name, f"{text}; did you mean '{meant}'?", True)
                else:
                    yield Unknown(name, f"{text}; --block-rpcs=help lists all commands", False)

    def loopholes(self, commands: Iterable[Named]) -> Iterator[str]:
        """Warnings about rules that other commands of this channel can bypass."""
        keys = [key for key in self._rules if key != "exec.users"]  # any program, but not as root
        if not keys:
            return
        usable = {command.name for command in commands if self.judge_command(command).allowed}
        sections = list(dict.fromkeys(f"[{key.partition('.')[0]}]" for key in keys))
        runs = [name for name in ("guest-exec", "qga-exec") if name in usable]
        if runs and "[exec]" not in sections:
            yield f"{', '.join(sections)}: {runs[0]} can run any program; set [exec] allow"
        # guest-file-open is a command to read; with a mode for writing, open_file needs more.
        writes = "qga-file-receive" in usable or (
            "guest-file-open" in usable and self._level >= _LEVEL_TO_WRITE
        )
        if writes and "[files]" not in sections:
            yield f"{', '.join(sections)}: any file can be written; set [files] write"
        changes = [name for name in _WAYS_TO_LOG_IN if name in usable]
        if changes and "[accounts]" not in sections:
            yield (
                f"{', '.join(sections)}: {changes[0]} can give the host a login to any account; "
                "set [accounts] allow"
            )
        if "qga-connect" in usable and "[connect]" not in sections:
            yield (
                f"{', '.join(sections)}: qga-connect can reach every service in the guest; "
                "set [connect] allow"
            )

    def open_file(self, path: str, flags: int) -> int:
        """Open a file, if that is allowed, and return its descriptor; create it exclusively.

        flags: as for open(2), without O_CREAT, which O_TRUNC and O_APPEND imply. The real path is
        checked before anything is opened, created or truncated. Raises Refused or OSError.
        """
        return self._file_rules.open_file(path, flags)

    def judge_file(self, path: str, flags: int) -> Verdict:
        """The verdict of `open_file`, without opening anything. Raises OSError."""
        return self._file_rules.judge_file(path, flags)

    @property
    def _file_rules(self) -> FileRules:
        if self._files is None:
            from qga.policy.file_rules import FileRules

            read, write = self._rules.get("files.read"), self._rules.get("files.write")
            refusal = None
            if self._level < _LEVEL_TO_WRITE:
                refusal = self._by_profile(
                    False, "opening a file for writing needs profile=file-write"
                )
            self._files = FileRules(read, write, refusal, self._config.files_follow_symlinks)
        return self._files

    def program(
        self, path: str, arg: Sequence[str], env: list[str] | None, wanted: Wanted | None = None
    ) -> Launch:
        """How to start a program, if that is allowed. Raises Refused, QgaError or OSError.

        It may wait for a disk or the name service. path, arg, env: as for guest-exec.
        """
        from qga.policy.launch import ANYHOW, complete
        from qga.programs.spawn import Launch

        if self._starts_anything and wanted in (None, ANYHOW):  # as nearly always
            return Launch(path)
        found, verdict = self._judge_launch(path, arg, env, wanted)
        require(verdict)
        return complete(found, wanted or ANYHOW)

    def judge_program(
        self, path: str, arg: Sequence[str], env: list[str] | None, wanted: Wanted | None = None
    ) -> Verdict:
        """The verdict of `program`, without starting anything. Raises QgaError or OSError."""
        from qga.policy import launch

        found, verdict = self._judge_launch(path, arg, env, wanted)
        if not verdict.allowed:
            return verdict
        how = launch.described(launch.complete(found, wanted or launch.ANYHOW))
        return verdict._replace(detail=how)

    def _judge_launch(
        self, path: str, arg: Sequence[str], env: list[str] | None, wanted: Wanted | None
    ) -> tuple[Launch, Verdict]:
        from qga.policy import launch

        wanted = wanted or launch.ANYHOW
        rules = self._rules.get("exec.allow")
        found = launch.settings(self._config, self._rules.get("exec.users"), wanted)
        verdict = Verdict(True, f"'{path}' may be started", "")
        if rules is None:
            found = found._replace(name=path)
        else:
            found, verdict = launch.judge(rules, found, path, arg, env)
        if verdict.allowed:
            verdict = self._judge_wanted(wanted, verdict)
        return found, verdict

    def _judge_wanted(self, wanted: Wanted, verdict: Verdict) -> Verdict:
        """The verdict on how an allowed program is to run: directory, terminal and user."""
        from qga.policy import launch

        if "exec.allow" in self._rules and wanted.directory is not None:
            return Verdict(False, _NO_DIRECTORY, verdict.rule)
        if wanted.terminal and not self._terminals:
            rule = verdict.rule or self._setting("exec.terminal").line("false")
            return Verdict(False, _NO_TERMINAL, rule)
        users = self._rules.get("exec.users")
        if users is not None:
            return launch.judge_choice(self._config, users, wanted) or verdict
        key = "exec.user" if self._config.exec_user else "exec.allow"
        return launch.judge_user(self._config, wanted, self._setting(key)) or verdict

    @property
    def _terminals(self) -> bool:
        """Whether programs may get a terminal."""
        chosen = self._config.exec_terminal
        return "exec.allow" not in self._rules if chosen is None else chosen

    def check_account(self, username: str) -> None:
        """Raise Refused if the account may not be changed."""
        if "accounts.allow" in self._rules:
            require(self.judge_account(username))

    def judge_account(self, username: str) -> Verdict:
        rules = self._rules.get("accounts.allow")
        if rules is None:
            return Verdict(True, f"the account '{username}' may be changed", "")
        matches = (bool(pattern.fullmatch(username)) for pattern in rules.patterns)
        return rules.judge(f"the account '{username}'", matches)

    def addresses(self, host: str, port: int) -> list[Address]:
        """The addresses of a host that may be connected to. Raises Refused or QgaError.

        It may wait for the name service, which is asked once: connect to no others.
        """
        from qga.policy import connect_rules

        found, verdict = connect_rules.judge_host(self._rules.get("connect.allow"), host, port)
        require(verdict)
        return found

    def socket(self, path: str) -> int:
        """An O_PATH descriptor of a unix socket that may be connected to; the caller closes it.

        Raises Refused or OSError.
        """
        from qga.policy import connect_rules

        fd, verdict = connect_rules.judge_socket(self._rules.get("connect.allow"), path)
        require(verdict)
        return fd

    def judge_host(self, host: str, port: int) -> Verdict:
        """The verdict of `addresses`. Raises QgaError."""
        from qga.policy import connect_rules

        return connect_rules.judge_host(self._rules.get("connect.allow"), host, port)[1]

    def judge_socket(self, path: str) -> Verdict:
        """The verdict of `socket`. Raises OSError."""
        from qga.policy import connect_rules

        fd, verdict = connect_rules.judge_socket(self._rules.get("connect.allow"), path)
        if fd >= 0:
            os.close(fd)
        return verdict

    def _compile(self) -> None:
        """Compile the patterns. Without rules their module is not even imported."""
        config = self._config
        texts = {
            "exec.allow": config.exec_allow,
            "exec.users": config.exec_users,
            "files.read": config.files_read,
            "files.write": config.files_write,
            "accounts.allow": config.accounts_allow,
            "connect.allow": config.connect_allow,
        }
        if all(each is None for each in texts.values()):
            return
        from qga.settings import connect_patterns, patterns

        compilers: dict[str, Callable[[str], Any]] = {
            "exec.allow": patterns.compile_program,
            "exec.users": patterns.compile_name,
            "files.read": patterns.compile_path,
            "files.write": patterns.compile_path,
            "accounts.allow": patterns.compile_name,
            "connect.allow": connect_patterns.compile_target,
        }
        for key, each in texts.items():
            if each is not None:
                self._rules[key] = Rules(self._setting(key), each, compilers[key])

    def _includes(self, access: str) -> bool:
        return PROFILES.index(access) <= self._level

    def _setting(self, key: str) -> Setting:
        return Setting(key, self._config.origins.get(key))

    def _by_profile(self, allowed: bool, reason: str) -> Verdict:
        setting = self._setting("profile")
        profile = self._config.profile
        return Verdict(allowed, f"{reason}; {setting.name} is {profile}", setting.line(profile))

    def _by_list(
        self, allowed: bool, name: str, key: str, names: tuple[str, ...], command: str = ""
    ) -> Verdict:
        setting = self._setting(key)
        rule = setting.line(name, names.index(name))
        equivalent = f", and {command} can do the same" if command not in ("", name) else ""
        return Verdict(allowed, f"{name} is in {setting.name}{equivalent}", rule)


def _disabled(command: Named) -> str:
    # The text of QEMU's agent since 9.1, which clients compare.
    return f"Command {command.name} has been disabled: the command is not allowed"
