"""The command line of qemu-ga as a process, also compared with the original's.

Differences from the original that are intended, each with a test below:
- block lists keep their order, and names in them are trimmed; our own keys are dumped, too;
- a pid file is dumped only if there is one to write, which needs -f or -d;
- relative paths are dumped as absolute ones: a daemon works in /;
- an unknown method is refused when it is read, not first when the channel is opened;
- the old key `blacklist` adds to `block-rpcs`, where the original's replaced it;
- -V and -h do not read the configuration file; a configuration error names the line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qga import __version__
from qga.cli import main
from tests.differences import differs
from tests.differential.agents import original as command_of_original

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QGA_CONF", "/nonexistent")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qga", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def run_original(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What 7.2.22 says, with its name as that of ours."""
    [program] = command_of_original("7.2")
    result = subprocess.run(
        [program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    result.stdout = result.stdout.replace(program, "qemu-ga")
    result.stderr = result.stderr.replace(program, "qemu-ga")
    return result


def dumped(text: str) -> dict[str, str]:
    heading, *lines = text.splitlines()
    assert heading == "[general]"
    return dict(line.split("=", 1) for line in lines)


def test_version() -> None:
    result = run("-V")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"QEMU Guest Agent 11.1.3\nqga {__version__}\n"


@differs("version-without-configuration")
def test_version_and_help_do_not_need_a_good_configuration(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("garbage")
    for option in ("-V", "-h"):
        assert run(option, QGA_CONF=str(tmp_path / "conf")).returncode == 0


def test_help() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "-b, --block-rpcs=LIST" in result.stdout


@pytest.mark.parametrize("line", [("-b", "help"), ("-b?",), ("-a", "help"), ("--blacklist=?",)])
def test_the_list_of_commands(line: tuple[str, ...], capfd: Captured) -> None:
    assert main(line) == 0
    names = capfd.readouterr().out.splitlines()
    assert "guest-ping" in names
    assert len(names) == len(set(names))


def test_a_closed_output_causes_no_traceback() -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    command = [sys.executable, "-m", "qga", "-b", "help"]
    result = subprocess.run(
        command, stdout=write_fd, stderr=subprocess.PIPE, check=False, timeout=20
    )
    os.close(write_fd)
    assert (result.returncode, result.stderr) == (1, b"")


@differs("unwritten-output")
def test_output_that_does_not_fit_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "qga", "-D"]
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, check=False, timeout=20
        )
    assert result.returncode == 1
    assert result.stderr == (
        b"qemu-ga: error: cannot write to standard output: No space left on device\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "--x",
        "--x=1",
        "--meth",
        "--version=3",
        "-Z",
        "-vZ",
        "-m",
        "-Db",
        "--method",
        "---",
        "-D -Z",
        "-Z -V",
        "-V -Z",
        "-D --block-rpcs",
    ],
)
def test_options_are_refused_in_the_words_of_the_original(line: str) -> None:
    ours, original = run(*line.split()), run_original(*line.split())
    assert ours.returncode == original.returncode
    assert ours.stderr == original.stderr
    if original.returncode:
        assert ours.stdout == original.stdout


def test_an_ambiguous_option_lists_what_it_could_be() -> None:
    ours, original = run("--ve"), run_original("--ve")
    assert ours.returncode == original.returncode == 1
    assert ours.stderr == (
        "qemu-ga: option '--ve' is ambiguous; possibilities: '--verbose' '--version'\n"
    )
    assert sorted(ours.stderr.split()) == sorted(original.stderr.split())


DUMPED_ALIKE = ("daemon", "method", "path", "logfile", "fsfreeze-hook", "statedir", "verbose",
                "retry-path")  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "-D",
        "-D --retry-path",
        "-Dvmunix-listen -p/a",
        "-F/x -D",
        "-F /x -D",
        "--fsfreeze-hook=/y -D",
        "operand -D",
        "--lo=/x -D -v -v",
        "-s x -D",
        "-D -m isa-serial",
        "-D -m vsock-listen -p 3:1234",
        "-D -m isa-serial -p /dev/ttyS1 -d -t /x",
        "-D -m unix-listen",
        "-D -m vsock-listen",
    ],
)
def test_the_dump_equals_that_of_the_original(line: str) -> None:
    ours, original = run(*line.split()), run_original(*line.split())
    assert ours.returncode == original.returncode
    if original.returncode:
        assert "must specify a path for this channel" in original.stderr
        assert ours.stderr.startswith("qemu-ga: error: must specify a path for this channel")
        return
    mine, theirs = dumped(ours.stdout), dumped(original.stdout)
    assert [key for key in mine if key in DUMPED_ALIKE] == [
        key for key in theirs if key in DUMPED_ALIKE
    ]
    for key in DUMPED_ALIKE:
        assert mine.get(key) == theirs.get(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[general]\n",
        "[general]\nverbose=true \n",
        "[general]\n  verbose = true\n",
        "[general] \nverbose=1",
        "[general]\npath=/a\\tb\\nc\\rd\\\\e\\sf",
        "[general]\npath=/a\npath=/b\n",
        "[general]\npath=/a\n[other]\nx=1\n[general]\nverbose=1\n",
        "[general]\r\npath=/a\r\nverbose=1\r\n",
        "[general]\npath=/é\n",
        "[general]\nkey with space=a\n",
        "[general]\npath[de]=a\n",
        "[general]\npath=/a#b ; c\n",
        "[general]\n#c\n   #d\nverbose=1\n",
        "[general]\nb=\\q\n",
        "x=1\n",
        "[general]\nfoo\n",
        "[general]\nverbose=yes\n",
        "[general]\nverbose=\n",
        "[general]\nverbose=2\n",
        "[general]\nverbose=TRUE\n",
        "[general\nverbose=1",
        "[general] x\nverbose=1",
        "[general]\npath=a\\sb\\x",
        "[general]\npath=a\\sb\\",
        "[general]\nblock-rpcs=a,b\\,c,d\n",
        "\ufeff[general]\npath=a",
        "[general]\n=a\n",
        ";c\n[general]\n",
        "[]\nx=1",
        "[a[b]\n[general]\n",
    ],
)
def test_a_file_is_taken_or_refused_as_by_the_original(tmp_path: Path, text: str) -> None:
    conf = tmp_path / "conf"
    conf.write_bytes(text.encode())
    ours, original = run("-D", QGA_CONF=str(conf)), run_original("-D", QGA_CONF=str(conf))
    assert ours.returncode == original.returncode
    if original.returncode:
        assert f"error loading configuration from path: {conf}, line " in ours.stderr
        assert ours.stdout == ""
        return
    mine, theirs = ours.stdout.splitlines(), original.stdout.splitlines()
    assert [line for line in theirs if not line.startswith(("pidfile=", "block-rpcs="))] == [
        line for line in mine if line.startswith("[") or line.partition("=")[0] in DUMPED_ALIKE
    ]


@differs("dump-absolute")
def test_a_dump_is_a_configuration_file(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_text(
        "[general]\nblock-rpcs=guest-exec\n"
        "[channel monitoring]\nmethod=unix-listen\npath=/run/m\\sx \nallow-rpcs=guest-ping\n"
    )
    line = ("-D", "-v", "-d", "-b", "a,b", "-l", "l", "-F", "-p", " odd\n\\path\t")
    first = run(*line, "-c", str(conf))
    assert first.returncode == 0
    (tmp_path / "dump").write_text(first.stdout)
    second = run("-D", "-c", str(tmp_path / "dump"))
    assert second.returncode == 0
    assert second.stdout == first.stdout
    assert second.stderr == ""
    assert "block-rpcs=guest-exec,a,b\n" in first.stdout
    assert "pidfile=/var/run/qemu-ga.pid\n" in first.stdout
    assert f"logfile={Path.cwd()}/l\n" in first.stdout
    assert "[channel monitoring]\nmethod=unix-listen\npath=/run/m x\\s\n" in first.stdout


def test_the_file_of_the_option_goes_before_that_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[general]\nverbose=1\n")
    (tmp_path / "b").write_text("garbage")
    result = run("-D", "-c", str(tmp_path / "a"), QGA_CONF=str(tmp_path / "b"))
    assert result.returncode == 0
    assert dumped(result.stdout)["verbose"] == "true"


def test_a_file_that_was_named_must_exist(tmp_path: Path, capfd: Captured) -> None:
    assert main(["-D", "-c", str(tmp_path / "none")]) == 1
    assert capfd.readouterr().err == (
        "qemu-ga: error: error loading configuration from path: "
        f"{tmp_path}/none, No such file or directory\n"
    )


def test_a_wrong_file_stops_the_agent_with_its_line(tmp_path: Path, capfd: Captured) -> None:
    conf = tmp_path / "conf"
    conf.write_text("[general]\n\nverbose = yes\n")
    assert main(["-c", str(conf), "-m", "unix-listen", "-p", str(tmp_path / "s")]) == 1
    assert capfd.readouterr().err == (
        f"qemu-ga: error: error loading configuration from path: {conf}, line 3: "
        "verbose: invalid boolean 'yes'; use true, false, 1 or 0\n"
    )
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("path", "reason"), [("/nonexistent/log", "No such file or directory"), ("/", "Is a directory")]
)
def test_a_log_that_cannot_be_opened_stops_the_agent(
    tmp_path: Path, capfd: Captured, path: str, reason: str
) -> None:
    assert main(["-l", path, "-m", "unix-listen", "-p", str(tmp_path / "s")]) == 1
    assert capfd.readouterr().err == (
        f"qemu-ga: error: unable to open specified log file '{path}': {reason}\n"
        "qemu-ga: error: error initializing guest agent\n"
    )


def test_warnings_go_to_standard_error_not_into_the_dump(tmp_path: Path, capfd: Captured) -> None:
    conf = tmp_path / "conf"
    conf.write_text("[general]\ndaemonize=1\nblacklist=a\n")
    assert main(["-c", str(conf), "-D", "--blacklist", "b"]) == 0
    out, err = capfd.readouterr()
    assert dumped(out)["block-rpcs"] == "a,b"
    assert err == (
        f"qemu-ga: warning: {conf}, line 2: unknown key 'daemonize' in [general] "
        "ignored; use 'daemon'\n"
        f"qemu-ga: warning: {conf}, line 3: config using deprecated 'blacklist' key, "
        "should be replaced with the 'block-rpcs' key.\n"
        "qemu-ga: warning: the option '--blacklist' is deprecated, use '--block-rpcs' instead\n"
    )


@differs("unknown-method")
@pytest.mark.parametrize("line", [("-m", "foo"), ("-D", "-m", "foo", "-p", "x")])
def test_an_unknown_method_is_refused(line: tuple[str, ...], capfd: Captured) -> None:
    assert main(line) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("qemu-ga: error: unsupported channel method/type: foo (use one of virtio")


def test_the_program_in_getopt_s_messages_is_that_of_the_call(tmp_path: Path) -> None:
    program = tmp_path / "my-agent"
    program.write_text("from qga.cli import main\nraise SystemExit(main())\n")
    result = subprocess.run(
        [sys.executable, program, "--x"], capture_output=True, text=True, check=False, timeout=20
    )
    assert result.stderr == f"{program}: unrecognized option '--x'\n"
    assert result.stdout == f"Unknown option, try '{program} --help' for more information.\n"


CRASHING_PLUGIN = """
import _thread, sys, time, warnings
warnings.warn("odd")
_thread.start_new_thread(lambda: 1 / 0, ())
time.sleep(0.2)
raise ValueError("wrong")
"""


def journaled(tmp_path: Path, *arguments: str) -> list[str]:
    """The agent's output if standard error is the journal."""
    path = tmp_path / "journal"
    with path.open("wb") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        done = subprocess.run(
            [sys.executable, "-m", "qga", *arguments],
            env={**os.environ, "JOURNAL_STREAM": stream},
            stdout=subprocess.DEVNULL,
            stderr=file,
            check=False,
            timeout=20,
        )
    lines = path.read_text().splitlines()
    assert lines, done
    return lines


@pytest.mark.parametrize(
    "line",
    [
        "--nonsense",
        "-m",
        "-m foo",
        "--blacklist x -D",
        "-c /nonexistent",
        "-c {tmp}/odd -D",
        "-c {tmp}/wrong",
        "-l /nonexistent/log -m unix-listen -p {tmp}/socket",
        "-t /nonexistent -m unix-listen -p {tmp}/socket",
        "-f /nonexistent/pid -t {tmp} -m unix-listen -p {tmp}/socket",
        "-p /nonexistent -t {tmp}",
        "-d -p /nonexistent -t {tmp} -f {tmp}/pid",
        "-l {tmp}/log -p /nonexistent -t {tmp}",
        "-c {tmp}/plugins.conf -p /nonexistent -t {tmp}",
        "-c {tmp}/plugins.conf -b help",
    ],
)
def test_each_complaint_has_a_level_in_the_journal(tmp_path: Path, line: str) -> None:
    """sd-daemon(3): `<3>` and `<4>` begin the lines of errors and warnings."""
    (tmp_path / "odd").write_text("[general]\ndaemonize=1\n")
    (tmp_path / "wrong").write_text("[general]\nverbose=perhaps\n")
    (tmp_path / "plugins").mkdir(0o755)
    (tmp_path / "plugins/crashing.py").write_text(CRASHING_PLUGIN)
    (tmp_path / "plugins.conf").write_text(f"[general]\nplugin-dir={tmp_path}/plugins\n")
    lines = journaled(tmp_path, *line.format(tmp=tmp_path).split())
    assert [each for each in lines if not each.startswith(("<3>", "<4>"))] == []
    if "plugins" in line:
        text = "\n".join(lines)
        assert "UserWarning: odd" in text
        assert "ZeroDivisionError" in text
        assert "ValueError: wrong" in text
