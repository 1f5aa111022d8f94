"""--doctor: why does the host get no answer, and what would help?

It only reads: it opens no channel and changes nothing. It works with a running agent, without one,
and with a broken configuration. Without other options it examines the running agent, with the
options of that agent. Command groups check what their commands need (CommandGroup.diagnose).
Plugins are loaded as when an agent starts, and anything that would be logged about them is a
finding (qga.doctor.trial).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from qga.doctor import processes
from qga.doctor.boot import diagnose_boot
from qga.doctor.channels import diagnose_channel, users_of
from qga.doctor.processes import Process
from qga.doctor.programs import diagnose_programs
from qga.doctor.trial import load_groups
from qga.doctor.unit import Unit, diagnose_unit, line_with, unit_of
from qga.errors import ConfigError
from qga.findings import Finding, failed, ok, warning
from qga.plugin.registry import CommandGroup, commands_of
from qga.plugin.time_limit import time_limit
from qga.policy.policy import Policy
from qga.service import log, state
from qga.service.service_manager import passes_sockets
from qga.settings import config as configuration
from qga.settings import configfile, options
from qga.settings.config import ChannelConfig, Config
from qga.wording import counted

_SELINUX = "/sys/fs/selinux/enforce"
_CONTEXT = "/proc/{}/attr/current"
_CONFINED = "virt_qemu_ga_t"
_COMMAND_LINE = "the command line: "


class Report(NamedTuple):
    """All findings."""

    findings: list[Finding]

    @property
    def well(self) -> bool:
        return all(finding.status == "ok" for finding in self.findings)

    def text(self) -> str:
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.status:<8} {finding.check}: {log.escape(finding.text)}")
            if finding.advice:
                lines.append(f"{'':<8} try: {log.escape(finding.advice)}")
        lines.append(self._summary())
        return "\n".join(lines) + "\n"

    def _summary(self) -> str:
        statuses = [finding.status for finding in self.findings]
        faults, warnings = statuses.count("failed"), statuses.count("warning")
        parts = [f"{faults} failed"] if faults else []
        parts += [counted(warnings, "warning")] if warnings else []
        return f"{', '.join(parts)}." if parts else "All is well."

    def json(self) -> str:
        found = [
            {key: value for key, value in finding._asdict().items() if value}
            for finding in self.findings
        ]
        return json.dumps({"well": self.well, "findings": found}) + "\n"


class _Known(NamedTuple):
    """A command, as a policy needs it."""

    name: str
    access: str
    like: tuple[str, ...]


def examine(arguments: options.Arguments) -> Report:
    """Run all checks."""
    unit, running = unit_of(arguments), processes.agents()
    asked_about = bool(arguments.settings or arguments.config_path)
    agent = None if asked_about else _choose(running, unit)
    variables: Mapping[str, str] = os.environ
    if agent is not None:
        arguments = options.parse(agent.options or [])
        # QGA_CONF and LISTEN_FDS count as the agent got them, not as this shell has them.
        variables = processes.environment(agent.pid)
    activated = unit is not None and unit.has_socket
    if agent is not None:
        activated = passes_sockets(variables, agent.pid)
    config, path, findings = _load(arguments, variables, activated)
    if agent is None:
        users = users_of(config.channels[0])
        agent = next((each for each in running if each in users), None)
    findings += _carefully("configuration", _diagnose_age(path, agent))
    findings += _carefully("agent", _diagnose_agent(agent, unit))
    findings += _carefully("unit", diagnose_unit(unit, agent))
    findings += _carefully("boot", diagnose_boot(unit))
    for channel in config.channels:
        findings += _carefully("channel", diagnose_channel(channel, agent))
        findings += _carefully("programs", diagnose_programs(channel))
    findings += _diagnose_groups(config, unit)
    findings += _carefully("state", _diagnose_state(config))
    findings += _carefully("files", _diagnose_files(config))
    findings += _carefully("selinux", _diagnose_selinux(agent))
    return Report(findings)


def _choose(running: list[Process], unit: Unit | None) -> Process | None:
    """The agent of the unit, or any other."""
    of_unit = (each for each in running if unit is not None and each.pid == unit.main_pid)
    return next(of_unit, next(iter(running), None))


def _carefully(check: str, found: Iterable[Finding]) -> list[Finding]:
    """The findings of one check; an exception does not prevent the other checks."""
    findings: list[Finding] = []
    try:
        # A check may wait for a dead mount or for D-Bus.
        with time_limit():
            findings.extend(found)
    except Exception as error:
        text = f"the check failed: {type(error).__name__}: {error}"
        findings.append(failed(check, text, "run qemu-ga --doctor as root"))
    return findings


def _load(
    arguments: options.Arguments, variables: Mapping[str, str], activated: bool
) -> tuple[Config, str, list[Finding]]:
    """The configuration, its path, and findings; without the file if that is broken."""
    path = arguments.config_path
    if path is None:
        path = variables.get("QGA_CONF", configuration.DEFAULT_CONFIG_PATH)
    file, findings = configfile.NO_FILE, []
    try:
        file = configfile.read(path)
        findings.append(ok("configuration", path))
    except FileNotFoundError:
        if arguments.config_path is None:
            findings.append(ok("configuration", f"{path} does not exist: using the defaults"))
        else:
            findings.append(failed("configuration", f"{path} does not exist", "create it"))
    except ConfigError as error:
        advice = "fix this first; the checks below ignore the file"
        findings.append(failed("configuration", str(error), advice))
    for text in (*file.warnings, *arguments.warnings):
        findings.append(warning("configuration", text, "correct or remove it"))
    settings = configuration.overlay(file.general, arguments.settings)
    try:
        config = configuration.build(settings, file.channels, file.origins, activated=activated)
        return config, path, findings
    except ConfigError as error:
        advice = "fix this first; the checks below assume the defaults"
        return Config(), path, [*findings, failed("configuration", str(error), advice)]


def _diagnose_age(path: str, agent: Process | None) -> Iterator[Finding]:
    """An agent reads its configuration only when it starts."""
    if agent is None or not os.path.exists(path):
        return
    if os.stat(path).st_mtime > processes.started(agent.pid):
        yield warning(
            "configuration",
            f"{path} has changed since the agent was started",
            "restart the agent: systemctl restart qemu-guest-agent",
        )


def _diagnose_agent(agent: Process | None, unit: Unit | None) -> Iterator[Finding]:
    if os.geteuid():
        text = "only root can see the open ports and the options of other processes"
        yield warning("agent", text, "run qemu-ga --doctor as root")
    if agent is None:
        advice = f"systemctl start {unit.name}" if unit else "start qemu-ga"
        yield failed("agent", "no agent is running", advice)
    else:
        yield ok("agent", f"running as pid {agent.pid}: {agent.name}")


def _diagnose_groups(config: Config, unit: Unit | None) -> list[Finding]:
    """The commands of this guest, which of them are disabled, and the checks of their groups."""
    groups, findings = load_groups(config)
    commands = [
        _Known(name, traits.access, traits.like)
        for group in groups
        for name, _, traits in commands_of(group)
    ]
    for channel in config.channels:
        findings += _carefully("commands", _diagnose_commands(channel, commands, unit))
    findings += _carefully("commands", _diagnose_availability(groups))
    for group in groups:
        findings += _carefully(group.__name__.lower(), _diagnose_group(group, config))
    return findings


def _diagnose_commands(
    channel: ChannelConfig, commands: list[_Known], unit: Unit | None
) -> Iterator[Finding]:
    """The disabled commands and the lines that disable them, which is not a fault."""
    policy = Policy(channel)
    off: dict[str, list[str]] = {}
    for command in commands:
        verdict = policy.judge_command(command)
        if not verdict.allowed:
            off.setdefault(verdict.rule, []).append(command.name)
    where = "" if channel.name == "main" else f" on the channel '{channel.name}'"
    if not off:
        yield ok("commands", f"all {len(commands)} are enabled{where}")
    for rule, names in off.items():
        every = len(commands)
        count = counted(len(names), f"of {every} is disabled", f"of {every} are disabled")
        yield ok("commands", f"{count}{where} by {_place(rule, unit)}: {', '.join(names)}")
    advice = "see qemu-ga --block-rpcs=help for all commands"
    for name, reason, stops in policy.unknown_names({command.name for command in commands}):
        text = f"unknown command '{name}' in a list of commands{where}"
        yield failed("commands", reason, advice) if stops else warning("commands", text, advice)
    for sentence in policy.loopholes(commands):
        yield warning("commands", f"{sentence}{where}", "see docs/security.md")


def _place(rule: str, unit: Unit | None) -> str:
    """The line of a rule; for the command line, that of the unit or its environment file."""
    if unit is None or not rule.startswith(_COMMAND_LINE):
        return rule
    value = rule.partition("=")[2]
    return f"{line_with(unit.files, value) or 'an option'}: {rule[len(_COMMAND_LINE) :]}"


def _diagnose_availability(groups: list[type[CommandGroup]]) -> Iterator[Finding]:
    missing = [
        name for group in groups for name, _, traits in commands_of(group) if not traits.are_met
    ]
    if missing:
        yield ok("commands", f"not available in this guest: {', '.join(missing)}")


def _diagnose_state(config: Config) -> Iterator[Finding]:
    directory = config.statedir
    if not os.path.isdir(directory):
        advice = f"mkdir {directory}, or set another statedir"
        yield failed("state", f"state directory {directory} does not exist", advice)
        return
    # False also for root if the filesystem is read-only (access(2)).
    if not os.access(directory, os.W_OK):
        advice = "run qemu-ga --doctor as root, or set another statedir"
        yield failed("state", f"state directory {directory} is not writable", advice)
    if state.is_frozen(directory):
        yield warning(
            "state",
            f"the filesystems are frozen ({state.state_path(directory)}.isfrozen)",
            "thaw them from the host (guest-fsfreeze-thaw) unless a snapshot is in progress",
        )
    else:
        yield ok("state", "the filesystems are not frozen")


def _diagnose_files(config: Config) -> Iterator[Finding]:
    """The files that the agent must be able to write, or else does not start."""
    for key, path in (("logfile", config.logfile), ("pidfile", config.pidfile)):
        if path is None:
            continue
        directory = os.path.dirname(path)
        fault = ""
        if os.path.isdir(path):
            fault = "it is a directory"
        elif os.path.exists(path) and not os.access(path, os.W_OK):
            fault = "it is not writable"
        elif not os.access(directory, os.W_OK):
            fault = f"{directory} does not exist or is not writable"
        if fault:
            text = f"{path} cannot be opened, so the agent does not start: {fault}"
            yield failed("files", text, f"fix this, or set another {key}")


def _diagnose_selinux(agent: Process | None) -> Iterator[Finding]:
    try:
        with open(_SELINUX, encoding="ascii") as file:
            enforcing = file.read().strip() == "1"
    except OSError:
        yield ok("selinux", "not in use")
        return
    if agent is None:
        yield ok("selinux", "enforcing" if enforcing else "permissive")
        return
    with open(_CONTEXT.format(agent.pid), encoding="utf-8", errors="replace") as file:
        context = file.read().rstrip("\0\n")  # SELinux ends it with a NUL, other modules do not
    text = f"{'enforcing' if enforcing else 'permissive'}, context of the agent: {context}"
    if enforcing and f":{_CONFINED}:" in context:
        yield warning(
            "selinux",
            f"{text}, which may run few programs and open few files",
            f"semanage permissive -a {_CONFINED}, and see packaging/selinux/README.md",
        )
    else:
        yield ok("selinux", text)


def _diagnose_group(group: type[CommandGroup], config: Config) -> Iterator[Finding]:
    yield from group.diagnose(config)
