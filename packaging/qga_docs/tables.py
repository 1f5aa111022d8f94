"""docs/commands.md, modules made from the interface, and the commented qemu-ga.conf."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from qga.plugin import discovery, schema
from qga.plugin.entry import INJECTED
from qga.plugin.registry import Traits, commands_of
from qga.settings import config
from qga.version import INTERFACE_VERSION

from . import interface


def commands_page() -> str:
    """The commands as a page of Markdown."""
    lines = [
        "# Commands",
        "",
        f"All commands of the agent: those of QEMU {INTERFACE_VERSION}, whose names begin with",
        "`guest-`, and its own, which begin with `qga-`. This page is made from the code: "
        "`make docs`.",
        "",
        "*Access* is the least that a host must be trusted with. A command that *may wait* (for a",
        "disk, a program, the network) never holds up another connection. *Frozen*: carried out",
        "also while filesystems are frozen. An argument in brackets may be left out.",
    ]
    for group in interface.groups():
        lines += ["", f"## {group.title}", ""]
        lines += [
            "| Command | Arguments | Access | May wait | Frozen | |",
            "|---|---|---|---|---|---|",
        ]
        for command in group.commands:
            arguments = ", ".join(f"`{argument}`" for argument in command.arguments)
            waits, frozen = _yes(command.blocking), _yes(command.frozen)
            lines.append(
                f"| `{command.name}` | {arguments} | {command.access} | {waits} | {frozen} "
                f"| {command.summary} |"
            )
    return "\n".join(lines) + "\n"


def arguments_module() -> str:
    """qga/ctl/arguments.py: what qgactl knows about arguments, for it may be installed alone."""
    lines = [
        '"""The arguments of the agent\'s commands; those in brackets may be left out.',
        "",
        "Made from the code by `make docs`.",
        '"""',
        "",
        "ARGUMENTS = {",
        *(f'    "{each.name}": "{", ".join(each.arguments)}",' for each in interface.commands()),
        "}",
    ]
    return "\n".join(lines) + "\n"


def standard_module() -> str:
    """qga/plugin/standard.py: what the agent knows about commands that it has not imported."""
    lines = [
        '"""The standard commands by group, and how their traits differ from the defaults.',
        "",
        "Made from the code by `make docs`.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "TYPE_CHECKING = False",
        "if TYPE_CHECKING:",
        "    from typing import Any",
        "",
        "# fmt: off",
        "GROUPS: dict[str, dict[str, dict[str, Any]]] = {",
    ]
    for group in discovery.standard_groups():
        module = group.__module__.rpartition(".")[2]
        lines.append(f'    "{module}.{group.__name__}": {{')
        for name, attribute, traits in commands_of(group):
            lines.append(f'        "{name}": {_differences(traits, getattr(group, attribute))},')
        lines.append("    },")
    return "\n".join([*lines, "}"]) + "\n"


def _differences(traits: Traits, handler: Any) -> str:
    defaults = Traits("audit")._asdict()
    given = {
        key: value
        for key, value in traits._asdict().items()
        if key == "access" or value != defaults[key]
    }
    given.pop("verdict", None)  # only --explain-policy needs it, and imports the group
    if schema.carries_number(schema.signature(handler, INJECTED).returns):
        given["floats"] = True
    return repr(given).replace("'", '"')


def configuration() -> str:
    """qemu-ga.conf with every key commented out."""
    lines = [
        "# Configuration of the QEMU guest agent: see qemu-ga.conf(5).",
        "# Each key is shown with its default, or with an example if it has none.",
        "",
        "[general]",
    ]
    for key in interface.general_keys():
        lines += _commented(key)
    lines += [
        "",
        "# Rules that restrict the host: see qemu-ga.conf(5). Without rules everything is allowed.",
        "# Use sections such as [files monitoring] for one channel.",
    ]
    for section, keys in interface.rule_keys().items():
        lines += ["", f"#[{section}]"]
        for key in keys:
            lines += _commented(key)
    lines += [
        "",
        "# Another channel; keys that it leaves out are inherited from [general].",
        "#[channel monitoring]",
        f"#path={config.DEFAULT_PATHS['virtio-serial'].replace('org.qemu.guest_agent.0', 'NAME')}",
    ]
    return "\n".join(lines) + "\n"


def _commented(key: interface.Key) -> list[str]:
    value = key.example if key.default is None else key.default
    remark = " (default: none)" if key.default is None else ""
    text = wrap(f"{key.help}{remark}", 98, initial_indent="# ", subsequent_indent="# ")
    return ["", *text, f"#{key.name}={value}"]


def _yes(value: bool) -> str:
    return "yes" if value else ""
