"""The rooms of the agent: which may import which, so that a stranger finds the way.

docs/architecture.md has the picture. Imports for types count, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import qga
from qga.agent import Agent
from qga.plugin.services import Services
from qga.serving.server import Server

PACKAGE = Path(qga.__file__).parent
HOST = {"client", "ctl", "integrations", "mcp"}
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("qga"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qga"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def edges() -> dict[str, dict[str, str]]:
    """For each room those that it imports, and a module that does."""
    found: dict[str, dict[str, str]] = {}
    for module, path in MODULES.items():
        for imported in imports_of(path):
            here, there = room_of(module), room_of(imported)
            if here != there:
                found.setdefault(here, {})[there] = f"{module} imports {imported}"
    return found


def circle_from(room: str, rooms: dict[str, dict[str, str]], way: tuple[str, ...]) -> list[str]:
    for there, reason in rooms.get(room, {}).items():
        if there == way[0]:
            return [reason]
        if there not in way:
            found = circle_from(there, rooms, (*way, there))
            if found:
                return [reason, *found]
    return []


def test_rooms_have_no_import_circle() -> None:
    rooms = edges()
    for room in rooms:
        circle = circle_from(room, rooms, (room,))
        assert not circle, "; ".join(circle)


def test_the_wire_knows_nothing_of_the_agent() -> None:
    assert set(edges()["wire"]) == {"errors", "stdlib", "records"}


def test_no_room_below_the_agent_imports_it() -> None:
    """What a command may ask of its agent is `Services`, what a connection may, `Server`."""
    users = {room for room, others in edges().items() if "agent" in others}
    assert users <= {"cli", "daemon", "doctor"}


def test_the_hosts_side_imports_no_room_of_the_agent() -> None:
    """But for the wire, tunnels, and how values are written, which qgactl reads as qemu-ga does."""
    allowed, found = (
        HOST | {"", "version", "errors", "loop", "ports", "records", "tunnels", "wire", "wording"},
        edges(),
    )
    for room in HOST:
        more = {"settings"} if room == "ctl" else set()
        beyond = {
            there: why for there, why in found.get(room, {}).items() if there not in allowed | more
        }
        assert not beyond, beyond


def test_the_agent_fulfils_what_its_commands_and_connections_ask() -> None:
    """mypy compares the signatures; here the names are, which plugins rely on."""

    def as_server(agent: Agent) -> Server:
        return agent

    def as_services(agent: Agent) -> Services:
        return agent

    assert as_server is not as_services
    for protocol in (Services, Server):
        methods = {name for name, value in vars(protocol).items() if callable(value)}
        asked = {name for name in methods if not name.startswith("_")}
        assert asked
        assert asked <= set(dir(Agent))


PAGE = (PACKAGE.parent / "docs/architecture.md").read_text()


def rows() -> dict[str, set[str]]:
    """For each room of the page's table those that it may import."""
    found = {}
    for names, imports in re.findall(r"^\| (`[^|]+`) \| [^|]+ \|([^|]*)\|$", PAGE, re.M):
        for name in re.findall(r"`([a-z]+)[^`]*`", names):
            found[name] = set(re.findall(r"`(\w+)`", imports))
    return found


def test_the_page_on_the_architecture_has_every_room_and_what_it_may_import() -> None:
    table = rows()
    rooms = edges()
    for outside in ("", "__main__"):
        rooms.pop(outside)
    for room, others in rooms.items():
        beyond = {there: why for there, why in others.items() if there not in table[room] | {""}}
        assert not beyond, f"docs/architecture.md does not let {room} import: {beyond}"
    assert {room_of(module) for module in MODULES} <= {*table, "", "__main__"}


def test_the_table_of_rooms_allows_no_circle() -> None:
    table = {room: dict.fromkeys(imports, room) for room, imports in rows().items()}
    for room in table:
        assert not circle_from(room, table, (room,))


def test_what_the_page_names_exists() -> None:
    """Functions such as `loop.Loop.run`, and paths such as `qga/wire/`."""
    words = set(re.findall(r"`([^`\s]+)`", PAGE)) | set(
        re.findall(r"(?:client|tests)/[\w/.]+", PAGE)
    )
    names = {word for word in words if re.fullmatch(r"[a-z_]+(\.\w+)*\.[A-Za-z_]\w*", word)}
    names = {name for name in names if not name.endswith((".py", ".md"))}
    paths = {word for word in words if "/" in word or word.endswith((".py", ".md"))}
    assert len(names) > 20
    assert len(paths) > 30
    assert [name for name in names if not exists(name)] == []
    roots = (PACKAGE.parent, PACKAGE)
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


def exists(name: str) -> bool:
    """Whether a module of qga, or something in it, has this name."""
    parts = name.removeprefix("qga.").split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(["qga", *parts[:count]]))
        except ImportError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_a_name_that_does_not_exist_is_found() -> None:
    assert exists("loop.Loop.run")
    assert not exists("loop.Loop.ran")
    assert not exists("loops.Loop.run")
