"""qgactl mcp and the protocol's own client, about real agents on this machine."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the protocol's SDK needs Python 3.10")

from tests.integration.agent_process import listening
from tests.integration.client_agents import running
from tests.integration.mcp_client import HELLO, Talk, Told, entries, talking
from tests.integration.qgactl_process import ENDING, QGACTL, environment, qgactl
from tests.integration.test_qgactl_exec import is_there, pids_in, wait_until_gone
from tests.unit.client_peer import HANG_UP, Filesystems, Peer

LOOKING = {"list_guests", "look", "read_file", "read_log_file"}
ALL = {
    *LOOKING, "run_program", "read_journal", "write_file", "freeze_filesystems",
    "thaw_filesystems", "shut_down", "copy_from_guest", "copy_to_guest",
}  # fmt: skip


NEVER_HERE = ",".join(
    [
        *("guest-fsfreeze-freeze", "guest-fsfreeze-freeze-list", "guest-shutdown", "qga-shutdown"),
        *("guest-suspend-ram", "guest-suspend-disk", "guest-suspend-hybrid"),
    ]
)
"""What an agent on this machine must not be asked for: it would do it."""

EVERYTHING = ["--allow", "exec,journal,write,freeze,power"]

FREEZE = {
    "id": 2,
    "method": "tools/call",
    "params": {"name": "freeze_filesystems", "arguments": {"guest": "web", "seconds": 600}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mcp")


@pytest.fixture(scope="module")
def inside(place: Path) -> Path:
    """The host's directory for copies."""
    inside = place / "inside"
    inside.mkdir()
    return inside


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with running("ours", place, ["--block-rpcs", NEVER_HERE]) as address:
        yield address


@pytest.fixture(scope="module")
def talk(address: str, place: Path, inside: Path) -> Iterator[Talk]:
    """With a server that allows everything."""
    options = [*EVERYTHING, "--log", str(place / "log")]
    options += ["--host-folder", str(inside), "--max-copy", "1M"]
    with talking(["--guest", f"web={address}", *options], place / "stderr") as talk:
        yield talk


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), LOOKING),
        (("--allow", "journal"), {*LOOKING, "read_journal"}),
        (("--allow", "exec", "--host-folder", "/tmp"),
         {*LOOKING, "run_program", "read_journal", "copy_from_guest"}),
    ],
)  # fmt: skip
def test_only_what_is_allowed_is_offered(
    address: str, tmp_path: Path, options: tuple[str, ...], names: set[str]
) -> None:
    with talking(["--guest", f"web={address}", *options], tmp_path / "stderr") as talk:
        assert set(talk.tools()) == names
        for name in ALL - names:
            told = talk.call(name, guest="web")
            assert told == (f"no tool '{name}' is offered; see tools/list", True)


def test_all_of_it(talk: Talk) -> None:
    tools = talk.tools()
    assert set(tools) == ALL
    for name, tool in tools.items():
        assert tool.annotations.read_only_hint == (name in {*LOOKING, "read_journal"})
        assert tool.description


def test_a_guest_is_looked_at(talk: Talk) -> None:
    [web] = talk.call("list_guests").data
    assert (web["guest"], web["answers"]) == ("web", True)
    system = talk.call("look", guest="web", about="system").data
    assert system["os"]["machine"]
    assert system["agent-version"]
    assert talk.call("look", guest="web", about="freeze").data["status"] == "thawed"
    assert "memory" in talk.call("look", guest="web", about="metrics").data
    for about in ("network", "filesystems", "disks"):
        assert not talk.call("look", guest="web", about=about).is_error


def test_files_are_read_and_written(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "file"

    def read(tool: str = "read_file", **how: int) -> Any:
        return talk.call(tool, guest="web", path=str(path), **how).data

    def write(content: str, **how: bool) -> Told:
        return talk.call("write_file", guest="web", path=str(path), content=content, **how)

    assert write("eins\nzwei\n") == ("10 bytes written.", False)
    write("drei\n", append=True)
    assert path.read_text() == "eins\nzwei\ndrei\n"
    assert read(offset=5, length=4) == {"path": str(path), "content": "zwei", "at-end": False}
    assert read("read_log_file", length=5)["content"] == "drei\n"
    path.write_bytes(b"\xff\x00")
    assert read() == {"path": str(path), "content-base64": "/wA=", "at-end": True}
    path.unlink()
    missing = talk.call("read_file", guest="web", path=str(path))
    assert missing.is_error
    assert "No such file or directory" in missing.marked


def test_programs_are_run(talk: Talk) -> None:
    def run(*argv: str, **more: Any) -> Told:
        return talk.call("run_program", guest="web", argv=list(argv), **more)

    assert run("sh", "-c", "cat; echo err >&2; exit 3", input="in").data == {
        "exit-code": 3, "stdout": "in", "stderr": "err\n",
    }  # fmt: skip
    assert run("id", "-un", user="nobody").data["stdout"] == "nobody\n"
    over = run("sleep", "1000", timeout=0.5).data
    assert (over["signal"], over["ended-by"]) == (15, "timeout")
    much = run("head", "-c", "1000000", "/dev/zero").data
    assert (len(much["stdout-base64"]), much["stdout-bytes-left-out"]) == (131_072, 901_696)
    assert "No such file" in run("/nonexistent").marked


def test_a_call_is_cancelled_and_others_go_on(talk: Talk, place: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    argv = ["sh", "-c", f"echo $$ >{pids}; exec sleep 1000"]
    call = talk.begin("run_program", guest="web", argv=argv, timeout=500)
    [pid] = pids_in(pids, 1)
    assert talk.call("read_file", guest="web", path="/etc/hostname").data["content"]
    assert is_there(pid)
    call.cancel()
    wait_until_gone([pid])
    assert not talk.call("look", guest="web", about="freeze").is_error
    assert "cancelled" in [entry.get("outcome") for entry in entries(place / "log")]


def test_the_end_of_the_client_ends_its_programs(address: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    argv = ["sh", "-c", f"echo $$ >{pids}; exec sleep 1000"]
    with talking(["--guest", f"web={address}", "--allow", "exec"], tmp_path / "stderr") as talk:
        call = talk.begin("run_program", guest="web", argv=argv)
        pids_in(pids, 1)
        call.cancel()
    wait_until_gone(pids_in(pids, 1))


@pytest.fixture
def outside(tmp_path: Path, inside: Path) -> Iterator[Path]:
    """A directory with a secret, which links in the host's directory for copies lead to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (inside / "link").symlink_to(outside)
    (inside / "file link").symlink_to(outside / "secret")
    yield outside
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert (outside / "secret").read_text() == "secret"


def test_copies_stay_in_the_directory(
    talk: Talk, inside: Path, outside: Path, tmp_path: Path
) -> None:
    guest = tmp_path / "guest"
    (guest / "tree").mkdir(parents=True)
    (guest / "file").write_text("of the guest")
    (guest / "tree" / "planted").symlink_to(outside)

    def fetch(path: str, host_path: str, **more: bool) -> Told:
        return talk.call("copy_from_guest", guest="web", path=path, host_path=host_path, **more)

    def bring(host_path: str, path: str) -> Told:
        return talk.call("copy_to_guest", guest="web", host_path=host_path, path=path)

    assert fetch(f"{guest}/file", f"{inside}/new").data["files"] == 1
    assert (inside / "new").read_text() == "of the guest"
    assert bring(f"{inside}/new", f"{guest}/back").data["files"] == 1
    assert (guest / "back").read_text() == "of the guest"
    assert fetch(f"{guest}/tree", str(inside), recursive=True).data["directories"] == 1
    assert (inside / "tree" / "planted").is_symlink()
    for place in ("link/x", "link", "tree/planted/x", "file link"):
        told = fetch(f"{guest}/file", f"{inside}/{place}")
        assert told.is_error or told.data["count-not-copied"] == 1, place
    for place in (f"{outside}/x", f"{inside}/../outside/x", "x", f"{inside}x"):
        told = fetch(f"{guest}/file", place)
        assert told == (f"'host_path' must be an absolute path in {inside}, without '..'", True)
    for place in ("link/secret", "file link"):
        bring(f"{inside}/{place}", f"{guest}/stolen")
        assert not (guest / "stolen").is_file(), place


def test_a_copy_has_a_bound(talk: Talk, inside: Path, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2_000_000))
    path = f"{tmp_path}/large"
    told = talk.call("copy_from_guest", guest="web", path=path, host_path=str(inside))
    assert told.is_error
    assert "more than 1048576 bytes: start with --max-copy" in told.marked
    assert not (inside / "large").exists()


def test_each_call_is_logged_without_secrets(talk: Talk, place: Path, tmp_path: Path) -> None:
    before = len(entries(place / "log"))
    talk.call("write_file", guest="web", path=str(tmp_path / "f"), content="geheim-1")
    argv = ["true", "--password=geheim-2", "plain"]
    talk.call("run_program", guest="web", argv=argv, env={"A": "geheim-3"})
    talk.call("no_tool", x="geheim-4")
    talk.call("look", guest="nobody", about="system")
    logged = entries(place / "log")[before:]
    assert "geheim" not in (place / "log").read_text()
    assert stat.S_IMODE((place / "log").stat().st_mode) == 0o600
    begun = [entry["arguments"] for entry in logged if "tool" in entry]
    assert begun[1] == {
        "guest": "web",
        "argv": ["true", "--password=<hidden>", "plain"],
        "env": {"A": "<8 characters>"},
    }
    assert [entry["outcome"] for entry in logged if "outcome" in entry] == [
        "ok",
        "ok",
        "error: no tool 'no_tool' is offered; see tools/list",
        "error: no guest 'nobody'; the guests are: web",
    ]


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("read_file", {"guest": "web"}, "'path' is missing: the absolute path of a file"),
    ("read_file", {"guest": "web", "pth": "/x"}, "unknown argument 'pth'; did you mean 'path'?"),
    ("read_file", {"guest": "wep", "path": "/x"}, "no guest 'wep'; did you mean 'web'?"),
    ("read_file", {"guest": "web", "path": 3}, "'path' must be a string"),
    ("read_file", {"guest": "web", "path": "a\0b"}, "'path' has a NUL character"),
    ("read_file", {"guest": "web", "path": "x" * 5000}, "more than 4096 characters"),
    ("read_file", {"guest": "web", "path": "/x", "length": 0}, "'length' must be from 1 to"),
    (
        "run_program",
        {"guest": "web", "argv": ["a"], "timeout": 0},
        "'timeout' must be at least 0.1",
    ),
    ("look", {"guest": "web", "about": "all"}, "'about' must be one of system, network"),
    ("run_program", {"guest": "web", "argv": "ls"}, "'argv' must be a list of strings"),
    ("run_program", {"guest": "web", "argv": []}, "'argv' is empty"),
    ("run_program", {"guest": "web", "argv": ["a"], "user": ""}, "'user' is empty"),
    ("run_program", {"guest": "web", "argv": ["a"], "directory": ""}, "'directory' is empty"),
    ("run_program", {"guest": "web", "argv": ["a"], "env": {"A": 1}}, "values are strings"),
]


@pytest.mark.parametrize(("tool", "arguments", "error"), WRONG)
def test_wrong_arguments(talk: Talk, tool: str, arguments: dict[str, object], error: str) -> None:
    told = talk.call(tool, **arguments)
    assert told.is_error
    assert error in told.text


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--allow", "all"), "--allow all: use one of exec, journal, write, freeze, power"),
        (("--host-folder", "/nonexistent"), "--host-folder /nonexistent: No such file"),
        (("--log", "/nonexistent/log"), "--log /nonexistent/log: No such file"),
        (("--timeout", "inf"), "mcp needs a finite --timeout"),
        (("--max-time", "0"), "use a duration greater than 0"),
    ],
)
def test_options_that_are_wrong(options: tuple[str, ...], error: str) -> None:
    status, out, err = qgactl("mcp", *options)
    assert (status, out) == (2, "")
    assert error in err


def of_another_user(log: Path) -> None:
    log.touch()
    os.chown(log, 65534, 65534)


def linked_twice(log: Path) -> None:
    log.touch()
    os.link(log, log.parent / "other")


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (of_another_user, "belongs to another user"),
        (linked_twice, "has hard links"),
        (os.mkfifo, "No such device or address"),
    ],
)
def test_a_log_that_another_user_could_read(
    tmp_path: Path, plant: Callable[[Path], None], reason: str
) -> None:
    log = tmp_path / "log"
    plant(log)
    status, out, err = qgactl("mcp", "--log", str(log))
    assert (status, out) == (2, "")
    assert f"--log {log}: " in err
    assert reason in err
    assert log.lstat().st_size == 0


def test_no_call_is_carried_out_that_cannot_be_logged(address: str, tmp_path: Path) -> None:
    options = ["--guest", f"web={address}", "--allow", "write", "--log", "/dev/full"]
    with talking(options, tmp_path / "stderr") as talk:
        told = talk.call("write_file", guest="web", path=str(tmp_path / "file"), content="text")
    assert told == (
        "the call was not carried out, because the log cannot be written: No space left on device",
        True,
    )
    assert not (tmp_path / "file").exists()


def test_without_the_sdk_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mcp_types.py").write_text("raise ModuleNotFoundError(name='mcp_types')\n")
    status, out, err = qgactl("mcp", PYTHONPATH=str(tmp_path))
    assert (status, out) == (1, "")
    assert err == (
        "qgactl: mcp requires the Python package 'mcp', and Python 3.10 or later: "
        "pip install 'qga[host,mcp]'\n"
    )


def test_the_original_agent_is_served_as_well(tmp_path: Path) -> None:
    with (
        running("original", tmp_path) as address,
        talking(["--guest", f"web={address}", "--allow", "exec"], tmp_path / "err") as talk,
    ):
        argv = ["sh", "-c", "cat; exit 3"]
        told = talk.call("run_program", guest="web", argv=argv, input="in")
        assert told.data == {"exit-code": 3, "stdout": "in", "stderr": ""}
        start = time.monotonic()
        told = talk.call("run_program", guest="web", argv=["sleep", "1000"], timeout=1)
        assert told.data["ended-by"] == "timeout"
        assert time.monotonic() - start < 15


def test_the_rules_of_a_guest_hold(tmp_path: Path) -> None:
    rules = f"[general]\nprofile=file-read\nblock-rpcs={NEVER_HERE}\n[files]\nread=/etc/hostname\n"
    with (
        listening(tmp_path, config=rules) as agent,
        talking(["--guest", f"web=unix:{agent.path}", *EVERYTHING], tmp_path / "err") as talk,
    ):
        assert talk.call("read_file", guest="web", path="/etc/hostname").data["content"]
        for tool, arguments, refusal in (
            ("read_file", {"path": "/etc/passwd"}, "has been refused"),
            ("write_file", {"path": f"{tmp_path}/x", "content": ""}, "has been refused"),
            ("run_program", {"argv": ["true"]}, "has been disabled"),
        ):
            told = talk.call(tool, guest="web", **arguments)
            assert told.is_error
            assert refusal in told.marked


def test_a_guest_is_shut_down(tmp_path: Path) -> None:
    peer = Peer(tmp_path / "peer", {"guest-shutdown": lambda _: HANG_UP})
    with talking(["--guest", f"web={peer.address}", *EVERYTHING], tmp_path / "err") as talk:
        told = talk.call("shut_down", guest="web", mode="reboot")
    peer.close()
    assert told == ("The guest was asked to reboot, and has accepted it.", False)
    assert [request["arguments"] for request in peer.requests] == [{"mode": "reboot"}]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_what_runs_and_thaws(tmp_path: Path, number: int) -> None:
    filesystems = Filesystems()
    peer = Peer(tmp_path / "peer", filesystems.handlers)
    options = ["mcp", "--guest", f"web={peer.address}", *EVERYTHING]
    with subprocess.Popen(
        [*QGACTL, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(None),
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for request in [*HELLO, FREEZE]:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **request}) + "\n")
            server.stdin.flush()
        while "frozen, for at most" not in server.stdout.readline():
            pass
        assert filesystems.frozen
        server.send_signal(number)
        assert server.wait(30) == 128 + number
    peer.close()
    assert not filesystems.frozen
