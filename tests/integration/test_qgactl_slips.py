"""What users and scripts pass to qgactl by mistake: endless input, absurd numbers, odd bytes."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import honest
from tests.hostile.test_commands import FAULT
from tests.integration.qgactl_process import QGACTL, Result, environment
from tests.unit.client_peer import Peer

pytestmark = pytest.mark.timeout(60)

# Python before 3.11 needs minutes for int() of many digits; later ones raise.
DIGITS = "9" * 5000
BYTES = os.fsdecode(b"\xff")

# Of address space, of which qgactl maps 200 MiB.
MOST_MEMORY = 1 << 30


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Peer]:
    handlers = {name: partial(answer, value) for name, value in honest.replies().items()}
    peer = Peer(tmp_path / "agent", defaultdict(lambda: partial(answer, {}), handlers))
    yield peer
    peer.close()


def answer(value: Any, _arguments: dict[str, Any]) -> Any:
    return value


def run(*arguments: str, address: str = "", stdin: Any = subprocess.DEVNULL, **more: str) -> Result:
    limit = (MOST_MEMORY, MOST_MEMORY)
    done = subprocess.run(
        [*QGACTL, *arguments],
        stdin=stdin,
        capture_output=True,
        env={**environment(address), **more},
        timeout=20,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert not FAULT.search(err), err
    return done.returncode, out, err


ENDLESS = {
    ("passwd", "root", "--stdin"): "the password has more than 65536 bytes",
    ("grow", "/", "--passphrase-stdin"): "the passphrase has more than 65536 bytes",
    ("ssh-keys", "add", "root", "-"): "cannot read -: more than 1048576 bytes",
    ("ssh-keys", "add", "root", "/dev/zero"): "cannot read /dev/zero: more than 1048576 bytes",
}


@pytest.mark.parametrize(("arguments", "complaint"), ENDLESS.items())
def test_input_without_an_end(agent: Peer, arguments: tuple[str, ...], complaint: str) -> None:
    with open("/dev/zero", "rb") as zero:
        status, out, err = run(*arguments, address=agent.address, stdin=zero)
    assert (status, out) == (2, "")
    assert complaint in err
    assert agent.requests == []


ABSURD = {
    ("forward", "GUEST", f"{DIGITS}:22"): "is not a port, a number from 0 to 65535",
    ("forward", "GUEST", f"22:{DIGITS}"): "is not a port, a number from 1 to 65535",
    ("proxy", DIGITS): "is not a port, a number from 1 to 65535",
    ("exporter", "--listen", f"127.0.0.1:{DIGITS}"): "is not ADDR:PORT",
    ("channel", "--number", "0"): "the number of a port is 1 to 30",
    ("wait", "--for", f"port:{DIGITS}"): "for --for: use port:NUMBER, a number from 1 to 65535",
    ("exec", "-u", "", "--", "id"): "invalid value '' for --user: it is empty; use a name, or",
    ("exec", "-w", "", "--", "pwd"): "invalid value '' for --workdir: it is empty",
    ("exec", "--memory", "", "--", "id"): "invalid value '' for --memory: use a number of bytes",
    ("exec", "--output-size", "", "--", "id"): "invalid value '' for --output-size: use a number",
    ("shell", "-u", ""): "invalid value '' for --user: it is empty",
    ("wait", "--for", "port:0"): "for --for: use port:NUMBER, a number from 1 to 65535",
    ("wait", "--for", "port:x: y"): "for --for: use port:NUMBER, a number from 1 to 65535",
    ("wait", "--for", "file:etc/motd"): "use an absolute path, such as file:/run/nologin",
    ("watch", "--usage-interval", "often"): "invalid value 'often' for --usage-interval: use a",
    ("ping", "-c", f"vsock:{DIGITS}:1"): "expected vsock:CID:PORT, two numbers",
    ("ping", "-c", f"hvsock:/x:{DIGITS}"): "expected hvsock:PATH:PORT",
    ("ping", "-c", "proxmox:\N{ARABIC-INDIC DIGIT ONE}"): "expected proxmox:VMID",
    ("call", "acme", f'{{"a": {DIGITS}}}'): "is not valid JSON: a number of 5000 digits",
    ("call", "acme", "[" * 50_000): "is nested too deeply (see",
    ("help", "snaphsot"): "no such command: snaphsot; did you mean snapshot? (see",
}


@pytest.mark.parametrize("arguments", ABSURD, ids=lambda words: " ".join(words)[:40])
def test_values_that_cannot_be(agent: Peer, arguments: tuple[str, ...]) -> None:
    address = "" if "-c" in arguments else agent.address
    words = [address if word == "GUEST" else word for word in arguments]
    status, out, err = run(*words, address=address)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert ABSURD[arguments] in err
    assert "Exceeds the limit" not in err


def test_the_number_of_a_port_in_its_name() -> None:
    status, out, _ = run("channel", f"org.example.{DIGITS}", "--format", "qemu")
    assert (status, "nr=2" in out) == (0, True)


NO_HOSTS = ["ü..b", "x" * 80 + "ü"]


@pytest.mark.parametrize("host", NO_HOSTS)
def test_hosts_whose_names_cannot_be_encoded(agent: Peer, host: str) -> None:
    status, _, err = run("forward", f"{host}:0:1.1.1.1:80", address=agent.address)
    assert (status, "this is not the name of a host" in err) == (1, True), err
    status, _, err = run("exporter", "--listen", f"{host}:0")
    assert (status, "this is not the name of a host" in err) == (1, True), err


def test_a_port_that_is_taken(agent: Peer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        forwarded = run("forward", f"{port}:80", address=agent.address)
        exported = run("exporter", "--listen", f"127.0.0.1:{port}")
    line = f"qgactl: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert forwarded[0] == exported[0] == 1
    assert forwarded[2].endswith(line)
    assert exported[2] == line


NOT_UTF8 = {
    ("exec", "--", "echo", BYTES): (125, "'arg' is not UTF-8"),
    ("exec", "--", BYTES): (125, "'path' is not UTF-8"),
    ("exec", "--env", f"A={BYTES}", "--", "true"): (125, "'env' is not UTF-8"),
    ("cat", f"/tmp/{BYTES}"): (1, "'path' is not UTF-8"),
    ("call", "acme", f"name={BYTES}"): (1, "'name' is not UTF-8"),
    ("call", "acme", '{"a": ["\\ud800"]}'): (1, "'a' is not UTF-8"),
    ("call", f"acme{BYTES}"): (1, "'command' is not UTF-8"),
    ("identity", "--hostname", BYTES): (1, "'hostname' is not UTF-8"),
}


@pytest.mark.parametrize("arguments", NOT_UTF8, ids=ascii)
def test_words_that_are_not_utf8(agent: Peer, arguments: tuple[str, ...]) -> None:
    """At once: an agent's error would come without the id of the request, and be dropped."""
    status, out, err = run(*arguments, address=agent.address)
    expected, complaint = NOT_UTF8[arguments]
    assert (status, out) == (expected, ""), err
    assert f"{complaint}, which the agent's JSON cannot carry" in err
    assert all("\\ud" not in ascii(request) for request in agent.requests)


def test_a_passphrase_that_is_not_utf8(agent: Peer, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_bytes(b"gr\xfc\xdfe\n")
    with open(tmp_path / "passphrase", "rb") as file:
        words = ("grow", "/", "--passphrase-stdin")
        status, _, err = run(*words, address=agent.address, stdin=file)
    assert (status, "--passphrase-stdin: not UTF-8 text" in err) == (2, True)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_path_that_is_no_socket(tmp_path: Path, kind: str) -> None:
    place = tmp_path if kind == "directory" else tmp_path / "file"
    if kind == "file":
        place.touch()
    status, _, err = run("ping", str(place))
    assert (status, f"qgactl: {place}: this is not a socket; qgactl list" in err) == (3, True), err


def test_an_address_to_listen_on_needs_no_host(agent: Peer) -> None:
    """As the synopsis has it: [ADDR:]PORT:[HOST:]PORT."""
    with subprocess.Popen(
        [*QGACTL, "forward", "127.0.0.1:0:22"],
        env=environment(agent.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
    assert line.startswith(b"127.0.0.1:")
    assert line.endswith(b" 127.0.0.1:22\n")
