"""Clients that do what none should, and what the agent owes them all the same."""

from __future__ import annotations

from contextlib import suppress

from tests.differential import garbage
from tests.integration.agent_process import Client, request
from tests.integration.gates import Gate
from tests.soak.scene import Scene

GONE = (BrokenPipeError, ConnectionResetError)


def floods(scene: Scene) -> None:
    """Requests for as long as the agent takes them, and not one reply read."""
    with scene.connect() as client:
        client.socket.setblocking(False)
        pings = request("guest-ping") * 500 + request("guest-info") * 5
        with suppress(BlockingIOError):
            for _ in range(100):
                client.socket.send(pings)
        scene.linger(0.5)


def stalls(scene: Scene) -> None:
    """Replies of some megabytes are left lying; then read after all, or for ever."""
    number, size = scene.chance.randint(1, 8), scene.chance.randint(1, 1_000_000)
    with scene.connect() as client:
        handle = scene.call(client, "guest-file-open", path="/dev/zero")
        client.send(request("guest-file-read", handle=handle, count=size) * number)
        scene.linger(1.0)
        if scene.chance.random() < 0.5:
            for reply in client.replies(number):
                assert reply["return"]["count"] == size
                scene.answers += 1
    with scene.connect() as client:
        scene.call(client, "guest-file-close", handle=handle)


def cuts(scene: Scene) -> None:
    """Leaves in the middle of a request, also of a long one."""
    message = request("guest-exec", path="true", arg=["x" * scene.chance.choice((1, 500_000))])
    with scene.connect() as client:
        scene.send_cut(client, message[: scene.chance.randrange(1, len(message))])
        if scene.chance.random() < 0.5:
            client.half_close()
            assert client.rest() == b""


def reconnects(scene: Scene) -> None:
    """Comes and goes, with and without a word."""
    for _ in range(20):
        with scene.connect() as client, suppress(*GONE):
            if scene.chance.random() < 0.5:
                client.send(request("guest-get-osinfo"))


def sends_garbage(scene: Scene) -> None:
    """Whatever came before: behind 0xFF a good request is answered."""
    number = scene.chance.randrange(2**63)
    with scene.connect() as client:
        for pieces in garbage.inputs(scene.chance.randrange(2**32), 20):
            if b"file-" not in b"".join(pieces):  # a handle by chance may be a good client's
                client.send(*pieces)
        client.send(b"\xff" + request("guest-sync-delimited", id=number))
        wanted = b'\xff{"return": %d}\n' % number
        while client.line() != wanted:
            pass
        scene.expect_ping(client)


def hangs(scene: Scene) -> None:
    """Has a command run that does not return, and waits for it, or frees itself, or leaves."""
    gate = Gate(scene.path())
    try:
        with scene.connect() as client:
            client.send(gate.request)
            gate.wait_until_reached()
            what = scene.chance.choice((waits, frees_itself, leaves))
            what(scene, client, gate)
    finally:
        gate.path.unlink()
        gate.path.with_name(f"{gate.path.name}.reached").unlink()


def waits(scene: Scene, client: Client, gate: Gate) -> None:
    client.send(request("guest-ping", 1))
    scene.linger(0.5)
    gate.open("done")
    scene.expect(client, {"return": "done", "id": f"gate {gate.path.name}"})
    scene.expect(client, {"return": {}, "id": 1})


def frees_itself(scene: Scene, client: Client, gate: Gate) -> None:
    client.send(request("guest-sync", id=7))
    scene.expect(client, {"return": 7})
    scene.expect_ping(client)
    gate.open("too late")
    scene.expect_ping(client)


def leaves(scene: Scene, client: Client, gate: Gate) -> None:
    client.close()
    scene.linger(0.5)
    gate.open("nobody hears this")


def forgets(scene: Scene) -> None:
    """Children that nobody asks for, some with a process that outlives them."""
    with scene.connect() as client:
        for script in ("exit 1", "echo unread", "sleep 1 & echo unread", "kill -9 $$"):
            arguments = {"path": "sh", "arg": ["-c", script], "capture_output": True}
            scene.call(client, "guest-exec", **arguments)
    scene.linger(0.3)
