"""Ports and hosts come and go; the agent stays the same process."""

from __future__ import annotations

import pytest

from .agent_socket import AgentError, AgentSocket, encode
from .service import (
    UNIT,
    by_hand,
    main_pid,
    open_files,
    port_device,
    run_to_its_end,
    stopped,
    switches_in,
    wait_for,
    wait_until_asleep,
    wait_until_quiet,
)
from .vm import AGENT_PORT, SPARE_PORT, Guest

pytestmark = pytest.mark.timeout(900)

PORT_LINK = f"/dev/virtio-ports/{AGENT_PORT.name}"


def raw_connection(guest: Guest) -> AgentSocket:
    """A connection on which nothing has been sent yet."""
    return AgentSocket(guest.channel_path())


def is_port(path: str) -> bool:
    return path.startswith("/dev/vport")


def leave_nothing(host: AgentSocket) -> None:
    """Connect and disconnect without sending anything."""


def leave_half_a_request(host: AgentSocket) -> None:
    host.send(b'{"execute": "guest-file-open", "arguments": {"path": "/etc/pass')


def leave_a_request_unread(host: AgentSocket) -> None:
    host.send(encode("guest-info"))


def leave_half_a_conversation(host: AgentSocket) -> None:
    host.sync()
    host.send(encode("guest-info") + b'{"execute": "guest-sync", "arguments": {"id": ')


LEAVINGS = (leave_nothing, leave_half_a_request, leave_a_request_unread, leave_half_a_conversation)


def test_20_disconnects_and_reconnects(guest: Guest) -> None:
    pid = main_pid(guest)
    for number in range(20):
        with raw_connection(guest) as host:
            LEAVINGS[number % len(LEAVINGS)](host)
        with guest.connect() as host:
            assert host.execute("guest-sync", id=number) == number
    assert main_pid(guest) == pid != 0


def test_host_that_speaks_before_the_guest_has_noticed_it(guest: Guest) -> None:
    """The first request may arrive before the event that a host has connected.

    The port then delivers the request but accepts no reply, and reports that nobody is connected.
    The window lasts microseconds, hence the many attempts.
    """
    for number in range(100):
        with guest.connect() as host:
            assert host.execute("guest-sync", id=number) == number


def test_large_reply_that_nobody_fetches_does_not_reach_the_next_host(guest: Guest) -> None:
    guest.run(["truncate", "--size=12M", "/var/tmp/zeros"])
    with guest.connect() as host:
        handle = host.execute("guest-file-open", path="/var/tmp/zeros")
        host.send(encode("guest-file-read", {"handle": handle, "count": 12 << 20}))
        assert host.lines.socket.recv(1) == b"{"
    with guest.connect() as host:
        assert host.execute("guest-ping") == {}
        host.execute("guest-file-close", handle=handle)
    guest.run(["rm", "/var/tmp/zeros"])


def test_port_unplugged_and_plugged_back(guest: Guest) -> None:
    pid = main_pid(guest)
    with guest.connect() as host:
        assert host.execute("guest-ping") == {}
    guest.unplug_port()
    guest.plug_port()
    with guest.connect() as host:
        assert host.execute("guest-ping") == {}
    assert main_pid(guest) == pid != 0


def test_port_unplugged_under_a_connected_host(guest: Guest) -> None:
    pid = main_pid(guest)
    with guest.connect() as host:
        host.send(b'{"execute": ')
        guest.unplug_port()
        wait_for(lambda: not any(map(is_port, open_files(guest, pid))), "the port to be closed")
        guest.plug_port()
        host.sync()
        assert host.execute("guest-ping") == {}
    assert main_pid(guest) == pid != 0


def test_handles_survive_an_unplugged_port(guest: Guest) -> None:
    with guest.connect() as host:
        handle = host.execute("guest-file-open", path="/etc/hostname")
    guest.unplug_port()
    guest.plug_port()
    with guest.connect() as host:
        assert host.execute("guest-file-read", handle=handle)["count"] == len("guest\n")
        host.execute("guest-file-close", handle=handle)


def test_restarted_agent_never_reuses_a_handle(guest: Guest) -> None:
    pid = main_pid(guest)
    with guest.connect() as host:
        first = host.execute("guest-file-open", path="/etc/hostname")
    guest.run(["systemctl", "restart", UNIT])
    with guest.connect() as host:
        with pytest.raises(AgentError, match=f"handle '{first}' has not been found"):
            host.execute("guest-file-read", handle=first)
        second = host.execute("guest-file-open", path="/etc/hostname")
        host.execute("guest-file-close", handle=second)
    assert second > first
    assert main_pid(guest) != pid


def test_killed_agent_is_back_and_answers(guest: Guest) -> None:
    pid = main_pid(guest)
    guest.forget_events()
    guest.run(["systemctl", "kill", "--signal=KILL", UNIT])
    guest.wait_port(AGENT_PORT, is_open=False)
    with guest.connect() as host:
        assert host.execute("guest-ping") == {}
    assert main_pid(guest) not in {0, pid}


def test_stops_at_once_with_status_0_on_sigterm(guest: Guest) -> None:
    with guest.connect(), stopped(guest):
        shown = guest.run(["systemctl", "show", "--property=Result,ExecMainStatus", UNIT]).stdout
        assert set(shown.split()) == {"Result=success", "ExecMainStatus=0"}
    with guest.connect() as host:
        assert host.execute("guest-ping") == {}


def test_by_hand_on_the_kernels_name_of_the_port(guest: Guest) -> None:
    device = port_device(guest)
    assert device.startswith("/dev/vport")
    with stopped(guest), by_hand(guest, "-m", "virtio-serial", "-p", device) as unit:
        with guest.connect() as host:
            assert host.execute("guest-ping") == {}
        assert main_pid(guest, unit) != 0


def test_default_path_without_udevs_link(guest: Guest) -> None:
    device = port_device(guest)
    with stopped(guest):
        guest.run(["rm", PORT_LINK])
        try:
            with by_hand(guest) as unit, guest.connect() as host:
                assert host.execute("guest-ping") == {}
                assert main_pid(guest, unit) != 0
        finally:
            guest.run(["ln", "-s", device, PORT_LINK])


def test_missing_port_is_an_error(guest: Guest) -> None:
    path = f"/dev/virtio-ports/{SPARE_PORT.name}"
    result = run_to_its_end(guest, f"--path={path}")
    assert result.status == 1
    assert path in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_port_is_waited_for_with_retry_path(guest: Guest) -> None:
    path = f"/dev/virtio-ports/{SPARE_PORT.name}"
    # A state of its own: the agent on the first port goes on meanwhile.
    guest.run(["mkdir", "-p", "/run/spare"])
    options = [f"--path={path}", "--retry-path", "--statedir=/run/spare", "-f", "/run/spare/pid"]
    with by_hand(guest, *options) as unit:
        pid = main_pid(guest, unit)
        wait_until_asleep(guest, pid)
        guest.plug_port(SPARE_PORT)
        try:
            with guest.connect(SPARE_PORT) as host:
                assert host.execute("guest-ping") == {}
            assert main_pid(guest, unit) == pid != 0
        finally:
            guest.unplug_port(SPARE_PORT)


def test_idle_agent_never_wakes_while_a_host_is_connected(guest: Guest) -> None:
    pid = main_pid(guest)
    with guest.connect() as host:
        assert host.execute("guest-ping") == {}
        wait_until_quiet(guest, pid)
        assert switches_in(guest, pid, seconds=4) == 0
        assert host.execute("guest-ping") == {}


def test_idle_agent_never_wakes_while_no_host_is_connected(guest: Guest) -> None:
    pid = main_pid(guest)
    with guest.connect() as host:
        assert host.execute("guest-ping") == {}
    wait_until_quiet(guest, pid)
    assert switches_in(guest, pid, seconds=4) == 0


def test_idle_agent_never_wakes_before_the_first_host(guest: Guest) -> None:
    guest.forget_events()
    guest.run(["systemctl", "restart", UNIT])
    guest.wait_port(AGENT_PORT)
    pid = main_pid(guest)
    wait_until_quiet(guest, pid)
    assert switches_in(guest, pid, seconds=4) == 0
