"""The way by libvirt: its exceptions become the agent's replies and our errors again."""

from __future__ import annotations

import base64
import math
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qga.client import (
    AgentError,
    AgentTimeout,
    CommandError,
    CommandNotFound,
    ConnectError,
    GuestAgent,
    ProtocolError,
)
from qga.client.hosts.checkup import Check, checkup
from tests.unit.libvirt_stand_in import UUID, Libvirt, LibvirtError, installed

REFUSAL = "internal error: unable to execute QEMU agent command '{}': {}"


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Libvirt]:
    scripted = installed(monkeypatch)
    yield scripted
    scripted.released.set()


def failing(code: str, message: str) -> Any:
    def agent(request: dict[str, Any]) -> Any:
        raise LibvirtError(code, message)

    return agent


def echo(request: dict[str, Any]) -> Any:
    arguments = request.get("arguments", {})
    return arguments["id"] if request["execute"] == "guest-sync" else arguments


def test_a_conversation(libvirt: Libvirt) -> None:
    libvirt.agent = echo
    with GuestAgent("libvirt:web", 5) as agent:
        assert agent.call("guest-x", a="ä") == {"a": "ä"}
        agent.call("guest-x", timeout=0.1)
        agent.call("guest-x", timeout=math.inf)
    assert libvirt.uris == [None]
    assert libvirt.timeouts == [5, 5, 1, -2]
    assert libvirt.closed == 1


def test_a_uri_and_a_uuid(libvirt: Libvirt) -> None:
    libvirt.agent = echo
    with GuestAgent(f"libvirt:qemu+ssh://host/system/{UUID}"):
        assert libvirt.uris == ["qemu+ssh://host/system"]


def test_ids_are_checked_where_the_agent_echoes_them(libvirt: Libvirt) -> None:
    libvirt.agent, libvirt.echoes_ids = echo, True
    with closing(GuestAgent("libvirt:web")) as agent:
        assert agent.call("guest-x", a=1) == {"a": 1}
        libvirt.echoes_ids = False  # what is passed on now belongs to another request
        with pytest.raises(ProtocolError, match=r"guest-x: .*the reply to another request"):
            agent.call("guest-x", a=2)
        assert agent.call("guest-x", a=3) == {"a": 3}


def test_an_old_agent_takes_no_ids(libvirt: Libvirt) -> None:
    seen: list[dict[str, Any]] = []

    def old(request: dict[str, Any]) -> Any:
        seen.append(request)
        if "id" in request:
            desc = "QMP input object member 'id' is unexpected"
            raise LibvirtError("VIR_ERR_INTERNAL_ERROR", REFUSAL.format("guest-sync", desc))
        return echo(request)

    libvirt.agent = old
    with closing(GuestAgent("libvirt:web")) as agent:
        assert agent.call("guest-x", a=1) == {"a": 1}
        assert agent.call("guest-x", a=2) == {"a": 2}
    assert [request["execute"] for request in seen] == ["guest-sync"] * 2 + ["guest-x"] * 2


def test_an_error_of_the_agent_is_the_commands(libvirt: Libvirt) -> None:
    text = REFUSAL.format("guest-file-open", "failed to open file '/x': No such file or directory")
    libvirt.agent = failing("VIR_ERR_INTERNAL_ERROR", text)
    with pytest.raises(CommandError) as caught:
        GuestAgent("libvirt:web").call("guest-file-open", path="/x")
    assert caught.value.class_ == "GenericError"
    assert caught.value.desc == "failed to open file '/x': No such file or directory"


@pytest.mark.parametrize(
    "desc",
    [
        "The command guest-x has not been found",
        "Command guest-x has been disabled: the command is not allowed",
        "Command guest-x has been disabled",
    ],
)
def test_a_command_that_is_not_there_is_known_by_the_agents_words(
    libvirt: Libvirt, desc: str
) -> None:
    libvirt.agent = failing("VIR_ERR_INTERNAL_ERROR", REFUSAL.format("guest-x", desc))
    with pytest.raises(CommandNotFound, match=desc):
        GuestAgent("libvirt:web").call("guest-x")


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        (
            "VIR_ERR_AGENT_UNRESPONSIVE",
            "Guest agent is not responding: QEMU guest agent is not connected",
            "is the agent running in the guest",
        ),
        ("VIR_ERR_OPERATION_INVALID", "domain is not running", "virsh start DOMAIN"),
        (
            "VIR_ERR_ARGUMENT_UNSUPPORTED",
            "argument unsupported: QEMU guest agent is not configured",
            "qgactl channel prints",
        ),
    ],
)
def test_no_way_to_the_agent_is_explained(
    libvirt: Libvirt, code: str, message: str, advice: str
) -> None:
    libvirt.agent = failing(code, message)
    with pytest.raises(ConnectError) as caught:
        GuestAgent("libvirt:web").ping()
    assert str(caught.value).startswith(f"libvirt:web: guest-ping: {message}: ")
    assert advice in str(caught.value)


def test_after_a_lost_connection_the_next_call_makes_a_new_one(libvirt: Libvirt) -> None:
    libvirt.agent = failing("VIR_ERR_INTERNAL_ERROR", "client socket is closed")
    agent = GuestAgent("libvirt:web")
    with pytest.raises(ConnectError, match="client socket is closed"):
        agent.ping()
    libvirt.agent = echo
    assert agent.call("guest-ping") == {}
    assert (libvirt.uris, libvirt.closed) == ([None, None], 1)


def test_libvirts_own_timeout_is_ours(libvirt: Libvirt) -> None:
    libvirt.agent = failing("VIR_ERR_AGENT_UNRESPONSIVE", "Guest agent not available for now")
    with pytest.raises(AgentTimeout, match="Guest agent not available for now: is the agent"):
        GuestAgent("libvirt:web").call("guest-ping", timeout=1e-9)


def test_the_timeout_of_the_domain_is_ours(libvirt: Libvirt) -> None:
    """It may be shorter (virsh guest-agent-timeout). libvirt 11.3 has a code for it."""
    text = "guest agent command timed out: guest agent didn't respond to command within '3' seconds"
    libvirt.agent = failing("VIR_ERR_AGENT_COMMAND_TIMEOUT", text)
    with pytest.raises(AgentTimeout, match="didn't respond to command within '3' seconds"):
        GuestAgent("libvirt:web").call("guest-ping", timeout=30)


def test_a_call_that_libvirt_never_returns_from_is_given_up(
    libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qga.client.libvirt_transport.GRACE", -0.95)
    held = threading.Event()

    def agent(request: dict[str, Any]) -> Any:
        return held.wait(60) and {}

    libvirt.agent = agent
    with pytest.raises(AgentTimeout, match="libvirt has not returned"):
        GuestAgent("libvirt:web").call("guest-ping", timeout=0.01)
    held.set()


def test_a_connection_that_is_never_made_is_given_up(libvirt: Libvirt) -> None:
    with pytest.raises(AgentTimeout, match="libvirt has not returned"):
        GuestAgent("libvirt:test:///hangs/web", 0.05).ping()


def test_files_are_written_in_pieces_that_libvirt_carries(libvirt: Libvirt) -> None:
    pieces: list[bytes] = []

    def agent(request: dict[str, Any]) -> Any:
        if request["execute"] == "guest-sync":
            return request["arguments"]["id"]
        pieces.append(base64.b64decode(request["arguments"]["buf-b64"]))
        return {"count": len(pieces[-1]), "eof": False}

    libvirt.agent = agent
    content = bytes(range(256)) * 2000
    with closing(GuestAgent("libvirt:web")) as guest:
        guest.file_write_all(1000, content)
        assert b"".join(pieces) == content
        with pytest.raises(ProtocolError, match="libvirt passes at most 131072"):
            guest.file_write(1000, content)


def test_an_unknown_domain_and_a_libvirt_that_is_not_there(libvirt: Libvirt) -> None:
    with pytest.raises(ConnectError, match=r"libvirt:db: Domain not found: 'db': virsh list"):
        GuestAgent("libvirt:db").ping()
    with pytest.raises(ConnectError, match=r"libvirt:test:///refuses/web: .*: is libvirt running"):
        GuestAgent("libvirt:test:///refuses/web").ping()


def test_without_libvirts_module_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(AgentError, match=r"libvirt:web: needs .*apt install python3-libvirt"):
        GuestAgent("libvirt:web").ping()


def states(checks: list[Check]) -> list[tuple[str, str]]:
    return [(check.subject, check.state) for check in checks]


def test_doctor_on_the_way_by_libvirt(libvirt: Libvirt) -> None:
    libvirt.agent = echo
    checks = list(checkup("libvirt:web", 5))
    assert states(checks)[:5] == [
        ("libvirt", "ok"),
        ("domain", "ok"),
        ("channel", "ok"),
        ("port", "ok"),
        ("answer", "ok"),
    ]


@pytest.mark.parametrize(("number", "command"), [(3, "resume"), (5, "start"), (7, "dompmwakeup")])
def test_doctor_of_a_domain_that_does_not_run(libvirt: Libvirt, number: int, command: str) -> None:
    libvirt.domain_state = number
    checks = list(checkup("libvirt:web", 5))
    assert states(checks) == [("libvirt", "ok"), ("domain", "failed")]
    assert checks[-1].advice == f"virsh {command} DOMAIN"


def test_doctor_of_a_domain_without_a_channel(
    libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.libvirt_stand_in.XML", "<domain><!--{state}--></domain>")
    last = list(checkup("libvirt:web", 5))[-1]
    assert last[:3] == ("channel", "failed", "the domain has no channel org.qemu.guest_agent.0")
    assert "qgactl channel" in last.advice


def test_doctor_asks_libvirt_for_a_name_that_is_nowhere_here(
    libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("QGA_HOST_ROOT", str(tmp_path))
    monkeypatch.setattr("qga.client.hosts.discovery.libvirt_is_installed", lambda: True)
    libvirt.domain_state = 5
    assert states(list(checkup("web", 5))) == [
        ("guest", "warning"),
        ("libvirt", "ok"),
        ("domain", "failed"),
    ]


def test_doctor_of_a_guest_whose_agent_does_not_run(libvirt: Libvirt) -> None:
    libvirt.port_state = "state='disconnected'"
    last = list(checkup("libvirt:web", 5))[-1]
    assert last[:3] == ("port", "failed", "no program in the guest has opened it")


def test_doctor_where_libvirt_knows_no_such_domain(libvirt: Libvirt) -> None:
    (check,) = checkup("libvirt:db", 5)
    assert (check.subject, check.state) == ("libvirt", "failed")
    assert "virsh list --all" in check.detail
