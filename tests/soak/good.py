"""Clients that do as they should, and know what must be answered."""

from __future__ import annotations

import base64
import os
import signal
import time
from typing import Any

from tests.integration.agent_process import PATIENCE, Client, request
from tests.soak.scene import BIG_SIZE, Scene


def asks(scene: Scene) -> None:
    """Several requests in one go, some of them wrong, to be answered in order."""
    with scene.connect() as client:
        for _ in range(scene.chance.randint(1, 10)):
            asked = [question(scene) for _ in range(scene.chance.randint(1, 20))]
            scene.send_cut(client, b"".join(message for message, _ in asked))
            for _, expected in asked:
                scene.expect(client, expected)


def question(scene: Scene) -> tuple[bytes, dict[str, Any]]:
    """A request and the whole reply.

    None that goes to a thread: a guest-sync behind one that takes long gives it up.
    """
    number = scene.chance.randrange(2**63)
    questions: list[tuple[bytes, dict[str, Any]]] = [
        (request("guest-ping", number), {"return": {}}),
        (request("guest-sync", number, id=number // 3), {"return": number // 3}),
        (
            request("guest-nonsense", number),
            error("CommandNotFound", "The command guest-nonsense has not been found"),
        ),
        (
            request("guest-sync", number, id="x"),
            error("GenericError", "Invalid parameter type for 'id', expected: integer"),
        ),
        (
            request("guest-exec-status", number, pid=number),
            error("GenericError", f"PID {number} does not exist"),
        ),
    ]
    message, reply = scene.chance.choice(questions)
    return message + b"\n", {**reply, "id": number}


def error(error_class: str, desc: str) -> dict[str, Any]:
    return {"error": {"class": error_class, "desc": desc}}


def synchronises(scene: Scene) -> None:
    """As Proxmox VE: a connection for each command, a sync in front of it in the same write."""
    number = scene.chance.randrange(2**63)
    with scene.connect() as client:
        client.send(
            b"\xff" + request("guest-sync-delimited", id=number) + request("guest-get-host-name")
        )
        line = client.line()
        while not line.startswith(b"\xff"):
            assert line.startswith(b'{"error"'), line[:500]
            line = client.line()
        assert line == b'\xff{"return": %d}\n' % number, line[:500]
        scene.expect(client, {"return": {"host-name": os.uname().nodename}})
        scene.answers += 1


def writes_and_reads(scene: Scene) -> None:
    """A file of its own, written in pieces and read back over another connection."""
    path = scene.path()
    pieces = [scene.chance.randbytes(scene.chance.randrange(100_000)) for _ in range(4)]
    with scene.connect() as client:
        handle = scene.call(client, "guest-file-open", path=str(path), mode="w+")
        for piece in pieces:
            encoded = base64.b64encode(piece).decode("ascii")
            told = scene.call(client, "guest-file-write", handle=handle, buf_b64=encoded)
            assert told == {"count": len(piece), "eof": False}, told
    with scene.connect() as client:
        scene.call(client, "guest-file-seek", handle=handle, offset=0, whence="set")
        assert read_all(scene, client, handle) == b"".join(pieces)
        assert scene.call(client, "guest-file-close", handle=handle) == {}
    assert path.read_bytes() == b"".join(pieces)
    path.unlink()


def reads_much(scene: Scene) -> None:
    path = scene.folder / "big"
    with scene.connect() as client:
        handle = scene.call(client, "guest-file-open", path=str(path))
        assert read_all(scene, client, handle) == path.read_bytes()
        scene.call(client, "guest-file-close", handle=handle)


def read_all(scene: Scene, client: Client, handle: int) -> bytes:
    content = b""
    while True:
        count = scene.chance.randint(1, BIG_SIZE)
        told = scene.call(client, "guest-file-read", handle=handle, count=count)
        piece = base64.b64decode(told["buf-b64"])
        assert told["count"] == len(piece) <= count
        content += piece
        if told["eof"]:
            return content


def runs_programs(scene: Scene) -> None:
    """A child that ends in one of the ways there are, and how that is told, once."""
    how = scene.chance.choice(_ENDINGS)
    with scene.connect() as client:
        how(scene, client)


def exits(scene: Scene, client: Client) -> None:
    code = scene.chance.randrange(256)
    script = f"echo out; echo err >&2; exit {code}"
    status = outcome(scene, client, start(scene, client, script))
    assert status == {"exited": True, "exitcode": code, **output(b"out\n", b"err\n")}, status


def kills_itself(scene: Scene, client: Client) -> None:
    number = scene.chance.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP))
    status = outcome(scene, client, start(scene, client, f"echo last; kill -{int(number)} $$"))
    assert status == {"exited": True, "signal": int(number), **output(b"last\n")}, status


def is_killed(scene: Scene, client: Client) -> None:
    pid = scene.call(client, "guest-exec", path="sleep", arg=["60"])["pid"]
    assert scene.call(client, "guest-exec-status", pid=pid) == {"exited": False}
    os.kill(pid, signal.SIGKILL)
    assert outcome(scene, client, pid) == {"exited": True, "signal": int(signal.SIGKILL)}


def leaves_a_process(scene: Scene, client: Client) -> None:
    """One in the background, which holds both pipes and writes more when it is let."""
    fifo = scene.path()
    os.mkfifo(fifo)
    script = f"(read line <{fifo}; echo late; echo late >&2) & echo early"
    status = outcome(scene, client, start(scene, client, script))
    fifo.write_text("go on\n")
    fifo.unlink()
    cut = {"out-truncated": True, "err-data": "", "err-truncated": True}
    assert status == {"exited": True, "exitcode": 0, **output(b"early\n"), **cut}, status


def copies(scene: Scene, client: Client) -> None:
    data = scene.chance.randbytes(scene.chance.randrange(1, 300_000))
    encoded = base64.b64encode(data).decode("ascii")
    told = scene.call(client, "guest-exec", path="cat", input_data=encoded, capture_output="stdout")
    status = outcome(scene, client, told["pid"])
    assert status == {"exited": True, "exitcode": 0, **output(data)}


def does_not_start(scene: Scene, client: Client) -> None:
    client.send(request("guest-exec", path="/does/not/exist"))
    assert "No such file or directory" in client.reply()["error"]["desc"]
    scene.answers += 1


_ENDINGS = (exits, kills_itself, is_killed, leaves_a_process, copies, does_not_start)


def start(scene: Scene, client: Client, script: str) -> int:
    told = scene.call(client, "guest-exec", path="sh", arg=["-c", script], capture_output=True)
    pid: int = told["pid"]
    return pid


def outcome(scene: Scene, client: Client, pid: int) -> dict[str, Any]:
    """The final status of a child, after which it is not known any longer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        status: dict[str, Any] = scene.call(client, "guest-exec-status", pid=pid)
        if status["exited"]:
            break
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.02)
    return status


def output(out: bytes, err: bytes = b"") -> dict[str, Any]:
    members: dict[str, Any] = {}
    for stream, data in (("out", out), ("err", err)):
        if data:
            members[f"{stream}-data"] = base64.b64encode(data).decode("ascii")
            members[f"{stream}-truncated"] = False
    return members
