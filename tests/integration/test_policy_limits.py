"""The keys of [limits], and what happens when each is reached."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from tests.integration.agent_process import listening, request, wait_for
from tests.integration.gates import Gate, with_gates
from tests.integration.guest_file import File
from tests.integration.guest_program import final_status, run, start_program


def test_open_handles_are_counted_by_channel(tmp_path: Path) -> None:
    door = tmp_path / "door"
    config = f"[limits]\nhandles=2\n[channel other]\nmethod=unix-listen\npath={door}\n"
    with listening(tmp_path, config=config) as agent:
        agent.wait_for_socket(door)
        with agent.connect() as client, agent.connect(door) as other:
            first, _ = File(client, "/etc/passwd"), File(client, "/etc/passwd")
            new = tmp_path / "new"
            for _ in range(2):
                assert client.refusal("guest-file-open", path=str(new), mode="w") == (
                    "2 files are already open; close one first"
                )
            assert not new.exists()
            assert "No such file" in other.refusal("guest-file-open", path=str(new))
            File(other, "/etc/passwd")
            first.close()
            File(client, new, "w")


def test_children_that_run_at_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with listening(tmp_path, config="[limits]\nchildren=1\n") as agent, agent.connect() as client:
        pid = start_program(client, "sh", "-c", f"read x <{gate}")
        made = tmp_path / "made"
        assert client.refusal("guest-exec", path="touch", arg=[str(made)]) == (
            "1 program is running already; wait for one to end"
        )
        gate.write_text("go on\n")
        final_status(client, pid)
        assert not made.exists()
        assert "No such file" in client.refusal("guest-exec", path="/none")
        run(client, "touch", str(made))
        assert made.exists()


def test_bytes_captured_in_all(tmp_path: Path) -> None:
    """A fetched status makes room; one that nobody has fetched is dropped for a new one."""
    config = "[limits]\ncaptured=1000\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        head = ("head", "-c")
        status = run(client, *head, "1500", "/dev/zero", capture_output=True)
        assert status["out-data"] == bytes(1000)
        assert status["out-truncated"] is True
        unfetched = start_program(client, *head, "600", "/dev/zero", capture_output=True)
        wait_for(lambda: not Path(f"/proc/{unfetched}").exists(), "it has ended")
        status = run(client, *head, "700", "/dev/zero", capture_output=True)
        assert status["out-data"] == bytes(700)
        assert status["out-truncated"] is False
        assert client.refusal("guest-exec-status", pid=unfetched).endswith("does not exist")
        status = run(client, *head, "1000", "/dev/zero", capture_output=True)
        assert status["out-truncated"] is False


def test_input_that_is_not_read_yet(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    data = base64.b64encode(bytes(300_000)).decode()
    config = "[limits]\nstdin=500K\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        pid = start_program(client, "sh", "-c", f"read x <{gate}; wc -c", input_data=data,
                            capture_output=True)  # fmt: skip
        assert client.refusal("guest-exec", path="cat", input_data=data) == (
            "programs have not read their input yet, and at most 512000 bytes can wait for them"
        )
        gate.write_text("go on\n")
        assert final_status(client, pid)["out-data"] == b"300000\n"
        status = run(client, "wc", "-c", input_data=data, capture_output=True)
        assert status["out-data"] == b"300000\n"
        run(client, "true", input_data=data)  # does not read it, which gives it back as well
        status = run(client, "wc", "-c", input_data=data, capture_output=True)
        assert status["out-data"] == b"300000\n"


def test_the_size_of_a_message(tmp_path: Path) -> None:
    config = "[limits]\nmessage=4K\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        assert client.call("guest-sync", id=1) == 1
        small, large = "x" * 3000, "x" * 5000
        assert "failed to open file" in client.refusal("guest-file-open", path=f"/{small}")
        for cuts in ((5000,), (100, 3000), (4095, 4096, 4097)):
            raw = request("guest-file-open", path=large)
            edges = [0, *cuts, len(raw)]
            for start, end in zip(edges, edges[1:]):
                client.send(raw[start:end])
            client.send(b"\xff" + request("guest-sync-delimited", id=7) + b"\n")
            line = client.line()
            assert b"JSON token size limit exceeded" in line
            while b'{"return": 7}' not in line:
                assert b"GenericError" in line
                line = client.line()


def test_the_size_of_a_message_bounds_memory(tmp_path: Path) -> None:
    config = "[limits]\nmessage=64K\n"
    with listening(tmp_path, config=config) as agent, agent.connect() as client:
        idle = agent.memory("VmRSS")
        client.send(b'{"execute": "guest-ping", "arguments": {"x": "')
        for _ in range(64):
            client.send(b"x" * (512 * 1024))
        client.send(b"\xff" + request("guest-sync-delimited", id=7) + b"\n")
        while b'{"return": 7}' not in client.line():
            pass
        assert agent.memory("VmHWM") - idle < 4 * 1024 * 1024


def test_worker_threads(tmp_path: Path, gate: Gate) -> None:
    with (
        with_gates(tmp_path, "[limits]\nthreads=1\n") as agent,
        agent.connect() as one,
        agent.connect() as two,
    ):
        one.send(gate.request)
        gate.wait_until_reached()
        assert two.refusal("qga-echo", text="x") == (
            "1 command is still running; try again when one has finished"
        )
        gate.open("go on")
        assert one.result() == "go on"
        assert two.call("qga-echo", text="x") == "x"
