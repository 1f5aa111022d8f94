"""What is wrong or odd in a configuration file is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from qga.errors import ConfigError
from qga.settings import configfile
from qga.settings.config import build

WHERE = "error loading configuration from path: /etc/qemu/qemu-ga.conf, line "


def read(text: str) -> configfile.ConfigFile:
    return configfile.parse(text, "/etc/qemu/qemu-ga.conf")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[general]\nverbose=yes\n", "2: verbose: invalid boolean 'yes'; use true, false"),
        ("[general]\n#\ndaemon=\n", "3: daemon: invalid boolean ''"),
        ("[general]\nmethod=foo\n", "2: method: unsupported channel method/type: foo (use one of"),
        ("[general]\npath=a\\x\n", "2: path: invalid escape '\\x'"),
        ("[general]\nmax-clients=0\n", "2: max-clients: '0' is too small"),
        ("[general]\nbaud=fast\n", "2: baud: 'fast' is not a whole number"),
        ("[general]\nallow-cids=host\n", "2: allow-cids: 'host' is not a whole number"),
        ("[channel x]\nretry-path=1\nmethod=x\n", "3: method: unsupported channel"),
        ("[general]\nfoo\n", "2: 'foo' is not a key=value pair"),
        ("verbose=1\n", "1: a key needs a group header such as [general] above it"),
        ("[channel]\n", "1: a channel needs a name, as in [channel monitoring]"),
        ("[channel main]\n", "1: channel 'main' already exists"),
        ("[channel a]\n[channel  a]\n", "2: channel 'a' already exists"),
    ],
)
def test_an_error_names_line_and_remedy(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(WHERE + message)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[general]\nfoo=1\n", "line 2: unknown key 'foo' in [general] ignored"),
        ("[general]\ndaemonize=1\n", "line 2: unknown key 'daemonize' in [general] "
         "ignored; use 'daemon'"),
        ("[channel x]\nverbose=1\n", "line 2: unknown key 'verbose' in [channel x]"),
        ("[general]\nfsfreeze_hook=/x\n", "line 2: unknown key 'fsfreeze_hook' in "
         "[general] ignored; did you mean 'fsfreeze-hook'?"),
        ("[general]\nverbos=1\n", "line 2: unknown key 'verbos' in [general] ignored; "
         "did you mean 'verbose'?"),
        ("\n[other]\n", "line 2: unknown section [other] ignored"),
        ("[general]\npath=/a\npath=/b\n", "line 3: 'path' overrides the one in line 2"),
        ("[general]\nblacklist=a\n", "line 2: config using deprecated 'blacklist' key, should be "
         "replaced with the 'block-rpcs' key."),
    ],
)  # fmt: skip
def test_an_oddity_is_a_warning(text: str, warning: str) -> None:
    (told,) = read(text).warnings
    assert told.startswith(f"/etc/qemu/qemu-ga.conf, {warning}")


BLOCK = "did you mean 'block-rpcs'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[general]\nblockrpcs=a\n", f"2: unknown key 'blockrpcs' in [general]; {BLOCK}?"),
        ("[general]\nblock_rpcs=a\n", f"2: unknown key 'block_rpcs' in [general]; {BLOCK}?"),
        ("[general]\nBlock-RPCs=a\n", f"2: unknown key 'Block-RPCs' in [general]; {BLOCK}?"),
        ("[general]\nblock-rpc=a\n", f"2: unknown key 'block-rpc' in [general]; {BLOCK}?"),
        ("[general]\nblcok-rpcs=a\n", f"2: unknown key 'blcok-rpcs' in [general]; {BLOCK}"),
        ("[general]\n#\nblackilst=a\n", f"3: unknown key 'blackilst' in [general]; {BLOCK}"),
        ("[general]\nalow-rpcs=a\n", "2: unknown key 'alow-rpcs' in [general]; did you"),
        ("[general]\nprofil=audit\n", "2: unknown key 'profil' in [general]; did you"),
        ("[general]\nPROFILE=audit\n", "2: unknown key 'PROFILE' in [general]; did you"),
        ("[general]\nallow-cid=3\n", "2: unknown key 'allow-cid' in [general]; did you"),
        ("[general]\ndeny-rpcs=a\n", "2: unknown key 'deny-rpcs' in [general]; the keys for"),
        ("[general]\nblocklist=a\n", "2: unknown key 'blocklist' in [general]; "),
        ("[general]\nread=/x\n", "2: unknown key 'read' in [general]; it belongs in [file"),
        ("[general]\nfiles.read=/x\n", "2: unknown key 'files.read' in [general]; it belon"),
        ("[general]\nexec_user=x\n", "2: unknown key 'exec_user' in [general]; it belongs"),
        ("[general]\ndisable=x\n", "2: unknown key 'disable' in [general]; the keys for "),
        ("[general]\nhandles=3\n", "2: unknown key 'handles' in [general]; it belongs i"),
        ("[channel x]\nblockrpc=a\n", f"2: unknown key 'blockrpc' in [channel x]; {BLOCK}?"),
        ("[channel x]\nblacklist=a\n", "2: unknown key 'blacklist' in [channel x]; did"),
        ("[channel x]\nwrite=/x\n", "2: unknown key 'write' in [channel x]; it belongs i"),
        ("\n[file]\nread=\n", "2: unknown section [file]; did you mean [files]?"),
        ("[Files]\n", "1: unknown section [Files]; did you mean [files]?"),
        ("[acounts]\n", "1: unknown section [acounts]; did you mean [accounts]?"),
        ("[account]\n", "1: unknown section [account]; did you mean [accounts]?"),
        ("[exce]\n", "1: unknown section [exce]; did you mean [exec]?"),
        ("[limit x]\n", "1: unknown section [limit x]; did you mean [limits]?"),
        ("[files.docs]\n", "1: unknown section [files.docs]; did you mean [files]?"),
        ("[files:docs]\n", "1: unknown section [files:docs]; did you mean [files]?"),
        ("[General]\n", "1: unknown section [General]; did you mean [general]?"),
        ("[chanel x]\n", "1: unknown section [chanel x]; did you mean [channel]?"),
        ("[ files ]\n", "1: unknown section [ files ]; did you mean [files]?"),
        ("[agent]\nblock-rpcs=a\n", "2: key 'block-rpcs' in unknown section [agent]"),
        ("[rules]\nallow=/x\n", "2: key 'allow' in unknown section [rules]"),
    ],
)  # fmt: skip
def test_what_speaks_of_rules_and_is_not_known_stops_the_agent(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(WHERE + message)


def test_an_unknown_key_may_hold_anything() -> None:
    assert read("[general]\nb=\\q\n").general == {}


def test_the_old_key_adds_to_the_new_one() -> None:
    file = read("[general]\nblock-rpcs=a\nblacklist=b,c\n")
    assert file.general == {"block-rpcs": ("a", "b", "c")}


def test_the_sample_of_the_manual_is_read() -> None:
    sample = """# qemu-ga configuration sample
[general]
daemonize = 0
pidfile = /var/run/qemu-ga.pid
verbose = 0
method = virtio-serial
path = /dev/virtio-ports/org.qemu.guest_agent.0
statedir = /var/run
"""
    file = read(sample)
    assert file.general["verbose"] is False
    assert len(file.warnings) == 1


def test_a_missing_file_has_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        configfile.read(str(tmp_path / "none"))


def test_a_directory_is_not_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"path: {tmp_path}, Not a regular file"):
        configfile.read(str(tmp_path))


def test_a_path_below_a_file_is_reported_with_the_system_s_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Not a directory"):
        configfile.read(str(tmp_path / "file" / "conf"))


def test_bytes_that_are_no_utf_8_are_kept(tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.write_bytes(b"# caf\xe9\n[general]\nlogfile=/caf\xe9\n")
    assert configfile.read(str(conf)).general == {"logfile": "/caf\udce9"}


RULES = """\
[files docs]
read=/srv/docs/
[exec]
allow=/bin/df -h; /bin/uptime ""
allow=/bin/echo ';'
user=nobody
environment=keep
[files]
read=/a;/b
write=/b
follow-symlinks=true
[accounts]
allow=web-*
[limits]
handles=5
children=6
captured=7M
stdin=8K
message=1M
threads=9
[limits docs]
handles=1
[channel docs]
method=unix-listen
path=/docs
profile=file-read
"""


def test_rules() -> None:
    file = configfile.parse(RULES, "conf")
    config = build(file.general, file.channels, file.origins)
    main, docs = config.channels
    assert file.warnings == ()
    assert main.exec_allow == ("/bin/df -h", '/bin/uptime ""', "/bin/echo ';'")
    assert (main.exec_user, main.exec_environment) == ("nobody", "keep")
    assert (main.files_read, main.files_write) == (("/a", "/b"), ("/b",))
    assert main.files_follow_symlinks is True
    assert main.accounts_allow == ("web-*",)
    assert main.limits_handles == 5
    assert main.limits_children == 6
    assert main.limits_captured == 7 * 1024 * 1024
    assert main.limits_stdin == 8 * 1024
    assert main.limits_message == 1024 * 1024
    assert config.limits_threads == 9
    assert (docs.profile, main.profile) == ("file-read", "unrestricted")
    assert (docs.files_read, docs.files_write) == (("/srv/docs/",), ("/b",))
    assert (docs.limits_handles, docs.limits_children) == (1, 6)
    assert docs.exec_allow == main.exec_allow
    assert main.origins["exec.allow"] == ("exec", "conf", (4, 4, 5))
    assert docs.origins["files.read"] == ("files docs", "conf", (2,))
    assert docs.origins["files.write"] == ("files", "conf", (10,))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[files]\nread=/a;b", "line 2: read: 'b' is not an absolute path;"),
        (
            "[files]\nread=/a\nread=b",
            "line 3: read: 'b' is not an absolute path; it must begin with /",
        ),
        ("[files]\nfollow-symlinks=yes", "line 2: follow-symlinks: invalid boolean 'yes'"),
        ("[exec]\nallow=/a 'b", "line 2: allow: '/a 'b' has an unclosed quote"),
        ("[exec]\nuser=", "line 2: user: the name is empty; use the name of a user"),
        ("[exec]\nenvironment=x", "line 2: environment: invalid value 'x'; use keep or drop"),
        ("[limits]\nmessage=1", "line 2: message: '1' is too small for a request"),
        (
            "[limits]\ncaptured=1T",
            "line 2: captured: '1T' is not a size; use digits, optionally followed by K, M or G",
        ),
        ("[limits]\nhandles=0", "line 2: handles: '0' is too small"),
        ("[general]\nprofile=all", "line 2: profile: invalid profile 'all'; use one of audit, "),
        ("[files nobody]\nread=/", "line 1: unknown channel 'nobody'; add a section [channel"),
        (
            "[files]\nwrit=/a",
            "line 2: unknown key 'writ' in [files]; did you mean 'write'?",
        ),
        (
            "[channel x]\nmethod=unix-listen\npath=/x\n[limits x]\nthreads=2",
            "line 5: unknown key 'threads' in [limits x]; use one of handles, children,",
        ),
        ("[files main]\nread=/", "line 1: use [files] for the main channel"),
    ],
)
def test_wrong_rules_are_named_with_their_line(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configfile.parse(text, "conf")
    assert str(raised.value).startswith(f"error loading configuration from path: conf, {reason}")
