"""vsock as far as possible without a virtual machine: addresses, and which clients are accepted."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qga.channels.unix_listen import UnixListen
from qga.channels.vsock_listen import VsockListen
from qga.loop import Loop
from qga.policy.caller import Caller
from qga.policy.policy import Policy
from qga.service.log import Log
from qga.serving.audit import MAX_BURST
from qga.settings.config import HOST_CID, ChannelConfig
from tests.integration.agent_process import refused_start

CALLER = Caller("main", Policy())


@pytest.mark.parametrize(
    "path",
    [
        "3",
        "3:",
        ":1234",
        "3:x",
        "host:1234",
        "3:1234:5",
        "-2:1234",
        "3:-1",
        f"{2**32}:1",
        "1:2**32",
    ],
)
def test_what_is_not_an_address_is_named(tmp_path: Path, path: str) -> None:
    complaint = refused_start(tmp_path, f"--path={path}", method="vsock-listen")
    assert f"error opening channel '{path}': a vsock address is <cid>:<port>" in complaint


def test_an_address_that_is_not_ours_cannot_be_bound(tmp_path: Path) -> None:
    complaint = refused_start(tmp_path, method="vsock-listen", path=f"{HOST_CID + 40}:1234")
    assert f"{HOST_CID + 40}:1234" in complaint
    assert "failed to create guest agent channel" in complaint


def channel(**settings: Any) -> VsockListen:
    config = ChannelConfig("main", "vsock-listen", "3:1234", **settings)
    return VsockListen(SimpleNamespace(), config, CALLER)


def test_only_the_host_is_let_in() -> None:
    assert channel().do_admit((HOST_CID, 99))
    for cid in (0, 1, 3, 2**32 - 1):
        assert not channel().do_admit((cid, 99))


def test_whoever_is_configured_is_let_in() -> None:
    local_too = channel(allow_cids=(1, HOST_CID))
    assert local_too.do_admit((1, 99))
    assert local_too.do_admit((HOST_CID, 99))
    assert not local_too.do_admit((3, 99))
    assert not channel(allow_cids=(1,)).do_admit((HOST_CID, 99))


class Closed(UnixListen):
    """Accepts no client, by the rule for vsock, on a socket that this machine supports."""

    def do_admit(self, address: object) -> bool:
        return False


def test_refused_clients_are_disconnected_and_take_no_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loop = Loop()
    agent = SimpleNamespace(loop=loop, log=Log())
    config = ChannelConfig("main", "unix-listen", str(tmp_path / "socket"), max_clients=1)
    closed = Closed(agent, config, CALLER)
    closed.open()
    closed.start()
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(config.path)
            loop.post(lambda: loop.post(loop.stop))
            loop.run()
            client.settimeout(0)
            assert client.recv(1) == b""
    for _ in range(2 * MAX_BURST):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(config.path)
            loop.post(lambda: loop.post(loop.stop))
            loop.run()
    closed.close()
    loop.close()
    err = capfd.readouterr().err
    assert err.count("rejected client") == MAX_BURST, "who knocks all the time fills no log"
    assert err.startswith(f"qemu-ga: warning: channel '{config.path}':")
