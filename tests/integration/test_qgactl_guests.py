"""The guest's place on the command line, with a real agent, and the errors for wrong words."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client_agents import running
from tests.integration.qgactl_process import QGACTL, environment, qgactl
from tests.integration.terminals import Terminal


class Host:
    """A host whose configuration names one agent `web`, and a missing socket `db`."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address
        self.socket = address.partition(":")[2]
        (folder / "qgactl.toml").write_text(
            f'[default]\nconnect = "web"\n[guests]\nweb = "{address}"\ndb = "{folder}/none"\n'
        )
        self.variables = {
            "XDG_CONFIG_HOME": str(folder),
            "QGA_HOST_ROOT": str(folder),  # none runs here
        }

    def run(self, *words: str, **variables: str) -> tuple[int, str, str]:
        return qgactl(*words, **{**self.variables, **variables})


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    with running("ours", folder) as address:
        yield Host(folder, address)


@pytest.mark.parametrize(
    "words",
    [
        "ping web",
        "ping -c web",
        "-c web ping",
        "ping --connect=web",
        "ping web -c web",
        "ping",
        "ping {socket}",
        "ping {address}",
        "-q ping -v {socket}",
        "exec web -- true",
        "exec true",
        "exec -- true",
        "exec -c web true",
        "-c web exec -- true",
        "exec web --timeout 1m -- true",
        "cat web:/etc/passwd",
        "cat /etc/passwd",
        "cat {address}:/etc/passwd",
        "call web guest-ping",
        "call guest-ping",
        'call web guest-sync {{"id":5}}',
        "status web",
        "fs web --output yaml",
        "doctor web",
        "freeze --help",
        "os web --timeout 1m --json",
    ],
)
def test_it_is_understood(host: Host, words: str) -> None:
    status, _, err = host.run(*words.format(socket=host.socket, address=host.address).split())
    assert status == 0, err


def test_copies(host: Host, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index").write_text("hello")
    (tmp_path / "site/index").chmod(0o751)
    assert host.run("cp", "-a", f"{tmp_path}/site", f"web:{tmp_path}/there")[0] == 0
    assert (tmp_path / "there/index").stat().st_mode & 0o777 == 0o751
    assert host.run("cp", f":{tmp_path}/there/index", str(tmp_path / "back"))[0] == 0
    assert (tmp_path / "back").read_text() == "hello"


@pytest.mark.skipif(os.geteuid() != 0, reason="the agent runs as this user")
def test_another_user_and_directory(host: Host) -> None:
    nobody = pwd.getpwnam("nobody")
    script = "id -u; pwd; echo $A $USER"
    out = host.run(
        "exec", "web", "-u", "nobody", "-w", "/", "--env", "A=b", "--", "sh", "-c", script
    )
    assert out == (0, f"{nobody.pw_uid}\n/\nb nobody\n", "")
    out = host.run("exec", "web", "-u", "4711", "--group", "4712", "--", "id")
    assert out == (0, "uid=4711 gid=4712 groups=4712\n", "")
    status, _, err = host.run("exec", "web", "--group", "", "--", "id")
    assert (status, "--group" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("ping nosuch", 3, "in the configuration: db, web"),
        ("ping web db", 2, "too many arguments: db (see qgactl ping --help)"),
        ("-c web ping db", 2, "two guests are given, web and db; name one"),
        ("ping -c web db", 2, "two guests are given, web and db; name one"),
        (
            "-c web exec db -- uname -a",
            2,
            "if db is the program: qgactl exec GUEST -- db -- uname -a",
        ),
        ("ping web --cuont 3", 2, "no such option: --cuont; did you mean --count"),
        ("--count 3 ping web", 2, "--count goes after the command: qgactl ping --count"),
        ("web ping", 2, "the guest goes after the command: qgactl ping web"),
        ("web", 2, "no such command: web; it is a guest: qgactl COMMAND web"),
        ("pnig web", 2, "no such command: pnig; did you mean ping?"),
        ("exec web ls -l", 125, "if web is the guest: qgactl exec web -- ls -l"),
        ("exec web", 125, "if web is the guest: qgactl exec web -- PROGRAM"),
        ("exec web -l -- ls", 2, "no such option: -l"),
        ("exec web --timout 5 -- ls", 2, "no such option: --timout; did you mean --timeout"),
        ("shell web db -- ls", 2, "two words before --: 'web' and 'db'; only the guest goes there"),
        (
            "exec web rm -- file",
            2,
            "no guest is called 'rm'; if web is the program: qgactl exec GUEST -- web rm -- file",
        ),
        ("exec --all web -- ls", 2, "--all and the names of guests exclude each other"),
        ("exec --all -- ls", 125, "no running guest with an agent port was found"),
        ("exec -t web db -- ls", 2, "-t works with one guest"),
        (
            "exec web db --at-once 0 -- ls",
            2,
            "invalid value '0' for --at-once: use a whole number",
        ),
        ("exec -- web uname", 125, "if web is the guest: qgactl exec web -- uname"),
        ("exec web --", 2, "missing argument PROGRAM [ARG]...; type qgactl exec GUEST -- PROGRAM"),
        ("exec wbe -- uname", 125, "in the configuration: db, web; did you mean web?\n"),
        ("ping wbe", 3, "in the configuration: db, web; did you mean web?\n"),
        ("ping db", 3, "qgactl: db: No such file or directory: is the guest running"),
        ("ping db", 3, "; 'db' is {folder}/none in {folder}/qgactl.toml\n"),
        ("top db --json --count 1 {empty}", 2, "the name of the guest is empty"),
        ("exporter {empty}", 2, "the name of the guest is empty"),
        ("checkmk {empty}", 2, "the name of the guest is empty"),
        ("ping {empty}", 2, "the name of the guest is empty (see qgactl ping --help)"),
        ("ping -c {empty}", 2, "the name of the guest is empty (see qgactl ping --help)"),
        ("-c {empty} ping", 2, "the name of the guest is empty"),
        ("ping --connect=", 2, "the name of the guest is empty"),
        ("exec {empty} -- hostname", 2, "the name of the guest is empty"),
        ("exec -c {empty} -- hostname", 2, "the name of the guest is empty"),
        ("exec web -u nosuch -- id", 125, "qgactl: web: qga-exec: "),
        ("cp {socket}:/etc/hosts .", 2, "is a socket: write unix:{socket}:/etc/hosts"),
        ("cp web:/a web:/b", 2, "both are in the guest"),
        ("cp web:{folder}/nope .", 1, "qgactl: web:{folder}/nope: no such file or directory\n"),
        ("cp {folder}/nope web:/tmp", 1, "qgactl: {folder}/nope: no such file or directory\n"),
        ("cp /etc/hosts web:{folder}/no/", 1, "qgactl: web:{folder}/no/: no such directory\n"),
        ("cp /etc/hosts web:{folder}/no/x", 1, "qgactl: /etc/hosts: web:{folder}/no/x: "),
        ("cp web:/etc/hosts {folder}/no/x", 1, "qgactl: web:/etc/hosts: {folder}/no/x: "),
        ("cp -R web:{folder}/nope .", 1, "qgactl: web:{folder}/nope: no such file"),
        ("shell web ls", 125, "if web is the guest: qgactl shell web -- ls"),
        ("freeze web ./snapshot", 127, "if web is the guest: qgactl freeze web -- ./snapshot"),
        ("cat web /etc/hosts", 2, "'web' is a guest: write web:/etc/hosts"),
        ("cp web:/a db:/a", 2, "'web' and 'db' are two guests, and one command works with one"),
        ("cp /etc/hosts /tmp", 2, "must be in the guest (GUEST:PATH)"),
        ("cp web:/etc/hosts", 2, "missing DESTINATION"),
        ("suspend deep", 2, "use one of ram, disk, hybrid, or the name of a guest"),
        ("ssh-keys web root", 2, "invalid value 'web' for list|add|remove: use one of list, add"),
        ("passwd", 2, "missing argument USER; type qgactl passwd GUEST USER"),
        ("time --set tomorrow", 2, "invalid time 'tomorrow'; use e.g. 2026-11-22T18:30"),
        ("call web guest-sync {id:5}", 2, "'{id:5}' is not valid JSON: Expecting property name"),
        ("call web guest-sync {id:5}", 2, "double quotes: line 1 column 2"),
        ('call web guest-file-open ["/x"]', 2, """'["/x"]' is not a JSON object, such as"""),
        ("call web guest-file-open pth=/x", 1, "no argument 'pth' (did you mean path?); Parameter"),
        ("call web ping", 1, "did you mean guest-ping?"),
        ("call web GUEST-PING", 1, "did you mean guest-ping?"),
        ("call web guest_ping", 1, "did you mean guest-ping?"),
        ("exec web --timeout 200ms -- sleep 9", 124, "web: the program was terminated after 0.2 s"),
        ("call web", 2, "missing argument COMMAND; type qgactl call GUEST COMMAND"),
        (
            "ping web --timeout 5sec",
            2,
            "use a duration greater than 0, such as 90 (seconds), 500ms",
        ),
        ("os web -o xml", 2, "invalid value 'xml' for --output: use one of table, json, yaml"),
        ("os web --json -o yaml", 2, "--json and --output yaml exclude each other"),
    ],
)
def test_wrong_words(host: Host, words: str, status: int, said: str) -> None:
    """One line that says what to type instead."""
    names = {"folder": host.folder, "socket": host.socket, "empty": "{empty}"}
    typed = [word if "{id" in word else word.format(**names) for word in words.split()]
    found, out, err = host.run(*("" if word == "{empty}" else word for word in typed))
    assert (found, out, err.count("\n")) == (status, "", 1)
    assert (said if "{id" in said else said.format(**names)) in err


def test_a_program_that_is_terminated_quietly(host: Host) -> None:
    words = ["exec", "-q", "web", "--timeout", "200ms", "--", "sleep", "9"]
    assert host.run(*words) == (124, "", "")


def test_list_names_the_configuration(host: Host) -> None:
    assert "also in the configuration, and not asked: db, web\n" in host.run("list")[2]
    assert host.run("list", "-q") == (0, "", "")


def test_an_empty_default_is_none(host: Host) -> None:
    assert host.run("ping", QGA_CONNECT="")[0] == 0


def test_a_socket_in_the_current_directory(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.path.dirname(host.socket))
    name = os.path.basename(host.socket)
    status, _, err = host.run("ping", name)
    assert (status, f"for the socket in this directory write ./{name}" in err) == (3, True)
    assert host.run("ping", f"./{name}")[0] == 0


def test_doctor_names_what_could_be_meant(host: Host) -> None:
    assert "in the configuration: db, web; did you mean web?" in host.run("doctor", "wbe")[1]
    assert f"'db' is {host.folder}/none in {host.folder}/qgactl.toml" in host.run("doctor", "db")[1]


def test_the_guest_of_the_words_goes_before_the_environment(host: Host) -> None:
    assert host.run("ping", "web", QGA_CONNECT="db")[0] == 0
    assert host.run("ping", QGA_CONNECT="db")[0] == 3
    assert host.run("ping", "-c", "web", QGA_CONNECT="db")[0] == 0


def test_a_configuration_that_others_may_write(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "qgactl.toml"
    file.write_text("[guests]\nweb = 'unix:/evil'\n")
    file.chmod(0o666)
    status, _, err = host.run("ping", "web", XDG_CONFIG_HOME=str(tmp_path))
    assert (status, err.count("\n")) == (2, 1)
    assert f"{file} is refused: {file} is writable by others" in err
    assert host.run("ping", host.address, XDG_CONFIG_HOME=str(tmp_path))[0] == 0
    assert host.run("list", XDG_CONFIG_HOME=str(tmp_path))[0] == 0


def test_yaml_and_json_have_the_same_content(host: Host) -> None:
    import yaml

    out = host.run("net", "web", "-o", "yaml")[1]
    names = [each["name"] for each in json.loads(host.run("net", "web", "--json")[1])]
    assert [each["name"] for each in yaml.safe_load(out)] == names


def test_more_and_less_to_read(host: Host) -> None:
    out, err = host.run("call", "web", "guest-get-host-name", "-v", "--json")[1:]
    assert json.loads(out) == {"host-name": socket.gethostname()}
    assert f"qgactl: guest web at {host.address}\n" in err
    assert "qgactl: guest-get-host-name: " in err
    assert host.run("thaw", "web")[1] == "web: no filesystem was frozen\n"
    assert host.run("thaw", "web", "-q") == (0, "", "")
    assert host.run("load", "web", "-q")[1]


@pytest.mark.parametrize("how", [["--no-color"], []])
def test_no_colors_on_a_terminal(host: Host, how: list[str]) -> None:
    env = {**environment(None), **host.variables, "TERM": "xterm", "COLUMNS": "80"}
    if not how:
        env["NO_COLOR"] = "1"
    with Terminal([*QGACTL, "info", "web", *how], env, columns=80) as screen:
        before = screen.expect("guest-ping")
        assert screen.wait() == 0
        assert "\x1b[" not in before + screen.shown


def test_help_fits_and_has_every_command_once() -> None:
    status, out, err = qgactl()
    assert (status, err) == (0, "")
    assert out == qgactl("--help")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("\n  exec ") == out.count("\n  list ") == 1
    titles = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == [
        "Guests:",
        "Look:",
        "Run and copy:",
        "Snapshots:",
        "Power:",
        "Accounts:",
        "Troubleshoot:",
        "Advanced:",
        "Options, before or after the command:",
    ]
    body = out[out.index("Guests:") : out.index("Options, before")]
    rows = [line for line in body.splitlines() if line.startswith("  ")]
    assert all(line.endswith(".") and line[2] != " " for line in rows), rows
