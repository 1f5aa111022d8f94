"""Rules and other mount namespaces, where a path leads to another file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSYS
from pathlib import Path

import pytest

from qga import errors
from qga.policy import opening
from qga.policy.policy import Policy
from qga.settings.config import ChannelConfig
from tests.integration.agent_process import AgentProcess, Client, listening
from tests.integration.guest_file import File
from tests.integration.test_explain_policy import explain

SECRET = "secret of root"

_DETACHED = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
open_tree, clone = 428, 1
fd = libc.syscall(open_tree, -100, sys.argv[1].encode(), clone)
assert fd >= 0, os.strerror(ctypes.get_errno())
os.dup2(fd, 9)
print("ready", flush=True)
time.sleep(600)
"""
"""A detached mount, at descriptor 9."""


class Place:
    def __init__(self, directory: Path) -> None:
        self.allowed, self.secret = directory / "allowed", directory / "secret"
        for each in (self.allowed, self.secret):
            each.mkdir()
            (each / "file").write_text("")
        (self.secret / "file").write_text(SECRET)
        (self.secret / "program").write_text("#!/bin/sh\necho ran\n")
        (self.secret / "program").chmod(0o755)
        self.config = (
            f"[files]\nread={self.allowed}/\nwrite={self.allowed}/\n"
            f"[exec]\nallow={self.allowed}/*\n[accounts]\nallow=\n"
        )
        self.conf = directory / "qemu-ga.conf"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextmanager
def process(*argv: str) -> Iterator[int]:
    """A process that prints a line when it is ready."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"ready\n"
            yield running.pid
        finally:
            running.kill()


@contextmanager
def namespace(script: str) -> Iterator[int]:
    """A process in a separate user and mount namespace, in which it has run the script."""
    shell = ["sh", "-ec", f"{script}\necho ready; exec sleep 600"]
    with process("unshare", "--user", "--map-root-user", "--mount", *shell) as pid:
        yield pid


@contextmanager
def container(place: Place) -> Iterator[int]:
    """A process with another root, as after pivot_root(2)."""
    root = place.allowed.parent / "root"
    root.mkdir()
    script = (
        f"mount --rbind / {root}; cd {root}\n"
        f"mount --bind {place.secret} {root}{place.allowed}\n"
        "pivot_root . mnt; exec chroot . sh -c 'echo ready; exec sleep 600'"
    )
    with process("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script) as pid:
        yield pid


@contextmanager
def mounted_over(place: Place) -> Iterator[str]:
    with namespace(f"mount --bind {place.secret} {place.allowed}") as pid:
        yield f"/proc/{pid}/root{place.allowed}"


@contextmanager
def single_file(place: Place) -> Iterator[str]:
    script = f"mount --bind {place.secret}/file {place.allowed}/file"
    with namespace(script) as pid:
        yield f"/proc/{pid}/root{place.allowed}"


@contextmanager
def working_directory(place: Place) -> Iterator[str]:
    with namespace(f"mount --bind {place.secret} {place.allowed}; cd {place.allowed}") as pid:
        yield f"/proc/{pid}/cwd"


@contextmanager
def descriptor(place: Place) -> Iterator[str]:
    with namespace(f"mount --bind {place.secret} {place.allowed}; exec 9<{place.allowed}") as pid:
        yield f"/proc/{pid}/fd/9"


@contextmanager
def detached(place: Place) -> Iterator[str]:
    argv = ("unshare", "--mount", "python3", "-c", _DETACHED, str(place.secret))
    with process(*argv) as pid:
        yield f"/proc/{pid}/fd/9"


@contextmanager
def pivoted(place: Place) -> Iterator[str]:
    with container(place) as pid:
        yield f"/proc/{pid}/root{place.allowed}"


@contextmanager
def private_tmp(place: Place) -> Iterator[str]:
    """As with PrivateTmp= of systemd.exec(5), with files of root in it."""
    directory = place.allowed
    script = f"mount -t tmpfs none {directory}; echo '{SECRET}' >{directory}/file"
    with process("unshare", "--mount", "sh", "-ec", f"{script}; echo ready; exec sleep 600") as pid:
        yield f"/proc/{pid}/root{directory}"


WAYS = [
    mounted_over, single_file, working_directory, descriptor, detached, pivoted, private_tmp,
]  # fmt: skip


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest, place: Place) -> Iterator[str]:
    """Another directory whose path ends like the allowed one."""
    with request.param(place) as path:
        assert Path(f"{path}/file").read_text().strip() == SECRET  # so there is something to win
        yield path


@pytest.fixture
def client(place: Place, tmp_path: Path) -> Iterator[Client]:
    with listening(tmp_path, config=place.config) as agent, agent.connect() as client:
        yield client


def test_the_agent_opens_nothing_there(client: Client, place: Place, way: str) -> None:
    (place.allowed / "inbox").symlink_to(way)
    for directory in (way, f"{place.allowed}/inbox"):
        for mode in ("r", "r+", "w", "a"):
            for name in ("file", "new"):
                refusal = client.refusal("guest-file-open", path=f"{directory}/{name}", mode=mode)
                assert refusal.startswith("Command guest-file-open has been refused: ")
        refusal = client.refusal("qga-file-checksum", path=f"{directory}/file")
        assert refusal.startswith("Command qga-file-checksum has been refused: ")
        refusal = client.refusal("guest-exec", path=f"{directory}/program")
        assert refusal.startswith("Command guest-exec has been refused: ")
        refusal = client.refusal("guest-file-open", path=f"{directory}")
        assert refusal.startswith("Command guest-file-open has been refused: ")
    assert Path(f"{way}/file").read_text().strip() == SECRET
    assert not os.path.exists(f"{way}/new")
    assert not (place.allowed / "new").exists()


def test_nor_without_openat2(monkeypatch: pytest.MonkeyPatch, place: Place, way: str) -> None:
    """As on Linux before 5.6, and under system call filters that do not know it."""

    def missing(_raw: bytes, _flags: int) -> int:
        raise OSError(ENOSYS, os.strerror(ENOSYS))

    monkeypatch.setattr(opening, "_openat2", missing)
    below = (f"{place.allowed}/",)
    policy = Policy(ChannelConfig(files_read=below, files_write=below))
    (place.allowed / "inbox").symlink_to(way)
    for directory in (way, f"{place.allowed}/inbox"):
        for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            with pytest.raises(errors.Refused):
                policy.open_file(f"{directory}/file", flags)
        with pytest.raises(errors.Refused):
            policy.open_file(f"{directory}/new", os.O_WRONLY | os.O_TRUNC)
    assert Path(f"{way}/file").read_text().strip() == SECRET
    assert not os.path.exists(f"{way}/new")
    policy.open_file(f"{place.allowed}/file", os.O_RDONLY)


def test_explain_says_the_same(client: Client, place: Place, way: str) -> None:
    (place.allowed / "inbox").symlink_to(way)
    for directory in (way, f"{place.allowed}/inbox"):
        for name in ("file", "new"):
            path = f"{directory}/{name}"
            status, text = explain(place.conf, "guest-file-open", f"path={path}", "mode=w")
            assert status == 1
            refusal = client.refusal("guest-file-open", path=path, mode="w")
            reason = refusal.partition("has been refused: ")[2]
            assert text.startswith(f"refused: {reason}\n")
    status, _ = explain(place.conf, "guest-exec", f"path={way}/program")
    assert status == 1


def test_what_is_there_is_not_told(client: Client, place: Place, way: str) -> None:
    (place.allowed / "inbox").symlink_to(way)
    for directory in (way, f"{place.allowed}/inbox"):
        for mode in ("r", "w"):
            told = {
                client.refusal("guest-file-open", path=f"{directory}/{name}", mode=mode).replace(
                    f"/{name}'", "'"
                )
                for name in ("file", "program", "missing")
            }
            assert len(told) == 1


@contextmanager
def beside(place: Place, script: str) -> Iterator[AgentProcess]:
    """An agent in a mount namespace where root has run the script before it was started."""
    launcher = ["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh"]
    with listening(place.conf.parent, config=place.config, launcher=launcher) as agent:
        yield agent


@pytest.mark.parametrize(
    "script",
    [
        "mount --bind {secret} {allowed}",
        "mount --bind {secret}/file {allowed}/file",
        "mount -t tmpfs none {allowed}; echo -n '{text}' >{allowed}/file",
        "mount -t tmpfs none {allowed}; cd {allowed}; mkdir l u w; echo -n '{text}' >l/file; "
        "mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none {allowed} || "
        "mount --bind l {allowed}",
    ],
)
def test_what_root_has_mounted_in_the_agent_s_namespace_is_as_good_as_any(
    place: Place, script: str
) -> None:
    script = script.format(secret=place.secret, allowed=place.allowed, text=SECRET)
    with beside(place, script) as agent, agent.connect() as client:
        assert File(client, place.allowed / "file").read() == (SECRET.encode(), True)
        File(client, place.allowed / "file", "a").write(b"!")
        assert File(client, place.allowed / "file").read() == (f"{SECRET}!".encode(), True)


def test_a_mount_that_comes_later_is_seen(place: Place) -> None:
    with beside(place, ":") as agent, agent.connect() as client:
        mount = ["mount", "--bind", str(place.secret), str(place.allowed)]
        subprocess.run(["nsenter", "--mount", f"--target={agent.process.pid}", *mount], check=True)
        assert File(client, place.allowed / "file").read() == (SECRET.encode(), True)


def test_a_process_of_the_agent_s_own_namespace(place: Place, client: Client) -> None:
    """Its root and descriptors lead to files that the agent sees. Links of /proc are not followed:
    the host must not learn whether such a process exists."""
    with process("sh", "-c", "echo ready; exec sleep 600") as pid:
        told = {
            client.refusal("guest-file-open", path=f"/proc/{each}/exe").replace(str(each), "")
            for each in (pid, 4194305)  # the second is beyond what pid_max can be
        }
        assert told == {
            "Command guest-file-open has been refused: '/proc//exe' is not in [files] read of "
            f"{place.conf}"
        }
