"""What qgactl's plain commands make of the agent's answers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from rich.console import Console

from qga.client import results as r
from qga.client import storage as s
from qga.ctl import growing, network, processors, storage, system, tables, units
from qga.ctl.sshkeys import Key, parse_key, read_keys, same_keys
from qga.ctl.tables import show_facts, show_table

GIB = 1 << 30
PCI = s.PCIAddress(0, 1, 31, 7)
HOSTILE = "[red]x\x1b[2J\n"
BODY = "AAAAC3NzaC1lZDI1NTE5AAAAIGwSRYH8QHrYUyAI3J6bA0qZKbfkrIzjHo6WwSK2cWBx"


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_table_is_aligned_and_text_of_the_guest_is_only_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_table(("Name", "Size"), [(HOSTILE, "1 B"), ("b", None)], right=("Size",))
    assert lines(capsys) == [
        "Name              Size",
        "──────────────────────",
        "[red]x\\x1b[2J\\n    1 B",
        "b                    -",
    ]


def test_facts_that_are_not_known_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_facts([("Name", HOSTILE), ("Variant", None), ("Machine", "x86_64")])
    assert lines(capsys) == ["Name     [red]x\\x1b[2J\\n", "Machine  x86_64"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * GIB, "1.5 TiB"),
        (2**64 - 1, "16.0 EiB"),
        (-(2**63), "-8.0 EiB"),
        (None, None),
    ],
)
def test_sizes(count: int | None, shown: str | None) -> None:
    assert units.size(count) == shown


def test_moments_and_distances() -> None:
    assert units.moment(0) == "1970-01-01 00:00:00+00:00"
    assert units.moment(1e300) == "1e+300"
    assert [units.distance(seconds) for seconds in (0, 19800, -34200)] == [
        "+00:00",
        "+05:30",
        "-09:30",
    ]
    assert (units.percent(1, 8), units.percent(0, 0)) == ("12.5%", None)


def test_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    info = r.OSInfo(kernel_release="6.1", machine="x86_64", name="Debian")
    system.show_machine(system.Machine("web", info, r.Timezone(3600, "CET")))
    assert lines(capsys) == [
        "Host name  web",
        "System     Debian",
        "Kernel     6.1",
        "Machine    x86_64",
        "Time zone  UTC+01:00 (CET)",
    ]


def test_users(capsys: pytest.CaptureFixture[str]) -> None:
    system.show_users([r.User("root", 60.5), r.User("a", 0.0, "CORP")])
    assert lines(capsys)[2:] == [
        "root   1970-01-01 00:01:00+00:00   -",
        "a      1970-01-01 00:00:00+00:00   CORP",
    ]


@pytest.mark.parametrize(
    ("ahead", "told"),
    [(0.25, "0.250 s ahead of the host's"), (-2.0, "2.000 s behind the host's")],
)
def test_a_clock(capsys: pytest.CaptureFixture[str], ahead: float, told: str) -> None:
    system.show_clock(system.Clock(10**9, ahead, r.Timezone(0)))
    assert lines(capsys) == [
        "Guest clock  1970-01-01 00:00:01+00:00",
        f"Difference   {told}",
        "Time zone    UTC+00:00",
    ]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("", system.NOW),
        ("rtc", None),
        ("@1.5", 1_500_000_000),
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01T01:00+01:00", 0),
        ("1970-01-02", 86_400 * 10**9),
    ],
)
def test_times_to_set(text: str, nanoseconds: int | None) -> None:
    assert system.parse_time(text) == nanoseconds


def test_interfaces(capsys: pytest.CaptureFixture[str]) -> None:
    addresses = (r.IPAddress("192.0.2.1", "ipv4", 24), r.IPAddress("::1", "ipv6", 128))
    sums = r.InterfaceStatistics(2048, 1, 2, 3, 10, 1, 4, 5)
    network.show_interfaces(
        [r.NetworkInterface("eth0", "52:54:00", addresses, sums), r.NetworkInterface("dummy0")]
    )
    assert lines(capsys) == [
        "Interface   Hardware address   Addresses      Received   Sent   Errors   Dropped",
        "────────────────────────────────────────────────────────────────────────────────",
        "eth0        52:54:00           192.0.2.1/24    2.0 KiB   10 B        6         8",
        "                               ::1/128",
        "dummy0      -                  -                     -      -        -         -",
    ]


def test_routes(capsys: pytest.CaptureFixture[str]) -> None:
    ipv4: dict[str, Any] = {"iface": "e", "metric": 0, "version": 4}
    ipv6: dict[str, Any] = {"iface": "e", "metric": 7, "version": 6}
    network.show_routes(
        [
            r.Route(destination="0.0.0.0", mask="0.0.0.0", gateway="192.0.2.1", **ipv4),
            r.Route(destination="192.0.2.0", mask="255.255.255.0", gateway="0.0.0.0", **ipv4),
            r.Route(destination="10.0.0.0", mask="odd", **ipv4),
            r.Route(destination="::", desprefixlen="0", nexthop="fe80::1", **ipv6),
            r.Route(destination="fe80::", desprefixlen="64", nexthop="::", **ipv6),
        ]
    )
    assert [line.split() for line in lines(capsys)[2:]] == [
        ["default", "192.0.2.1", "e", "0"],
        ["192.0.2.0/24", "-", "e", "0"],
        ["10.0.0.0/odd", "-", "e", "0"],
        ["default", "(IPv6)", "fe80::1", "e", "7"],
        ["fe80::/64", "-", "e", "7"],
    ]


def test_disks(capsys: pytest.CaptureFixture[str]) -> None:
    scsi = s.DiskAddress("scsi", 0, 1, 2, PCI, serial="S1")
    unknown = s.DiskAddress("nvme", 0, 0, 0, s.PCIAddress(-1, -1, -1, -1))
    done = s.DiskCounters(read_sectors=2, write_sectors=4096)
    storage.show_disks(
        [
            storage.Disk(s.DiskInfo("/dev/sda", False, (), scsi), done),
            storage.Disk(s.DiskInfo("/dev/sda1", True, ("/dev/sda",))),
            storage.Disk(s.DiskInfo("/dev/dm-0", False, ("/dev/sda1",), None, "vg-root")),
            storage.Disk(s.DiskInfo("/dev/nvme0n1", False, (), unknown)),
        ]
    )
    shown = lines(capsys)
    assert shown[0].split("  ")[0] == "Device"
    assert [line.split() for line in shown[2:]] == [
        [
            "/dev/sda",
            "disk",
            "scsi",
            "0000:01:1f.7",
            "0:1:2",
            "S1",
            "-",
            "1.0",
            "KiB",
            "2.0",
            "MiB",
        ],
        ["/dev/sda1", "partition", "-", "-", "-", "/dev/sda", "-", "-"],
        ["/dev/dm-0", "(vg-root)", "volume", "-", "-", "-", "/dev/sda1", "-", "-"],
        ["/dev/nvme0n1", "disk", "nvme", "-", "-", "-", "-", "-"],
    ]


def test_filesystems(capsys: pytest.CaptureFixture[str]) -> None:
    storage.show_filesystems(
        [
            s.FilesystemInfo("vda1", "/", "ext4", (), 3 * GIB, 4 * GIB),
            s.FilesystemInfo("vdb", "/hangs", "ext4"),
        ]
    )
    assert lines(capsys) == [
        "Mounted at   Device   Type      Size      Used      Free     Use",
        "────────────────────────────────────────────────────────────────",
        "/            vda1     ext4   4.0 GiB   3.0 GiB   1.0 GiB   75.0%",
        "/hangs       vdb      ext4         -         -         -       -",
    ]


def test_what_was_trimmed(capsys: pytest.CaptureFixture[str]) -> None:
    storage.show_trimmed([s.TrimResult("/", 2048, 0), s.TrimResult("/b", error="not supported")])
    assert [line.split() for line in lines(capsys)[2:]] == [
        ["/", "2.0", "KiB"],
        ["/b", "-", "not", "supported"],
    ]


def test_what_has_grown(capsys: pytest.CaptureFixture[str]) -> None:
    step = s.GrowthStep("physical-volume", "/dev/vda2", "pvresize", 1 << 30, 3 << 30, True)
    growing.show_growth("web", s.Growth("/", "xfs", 3 << 30, (step,), ("/dev/md0 is an array",)))
    out, err = capsys.readouterr()
    assert out.splitlines()[2].split() == (
        ["physical", "volume", "/dev/vda2", "pvresize", "1.0", "GiB", "3.0", "GiB", "yes"]
    )
    assert err == "qgactl: /dev/md0 is an array\n"


def test_processor_times_are_parts_of_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    processors.show_times(
        [
            r.ProcessorTimes(0, 10, 10, 5, 50, 10, 3, 2, 10, 99, 99),
            r.ProcessorTimes(1, 0, 0, 0, 0),
        ]
    )
    assert [line.split() for line in lines(capsys)[2:]] == [
        ["0", "20.0%", "10.0%", "10.0%", "10.0%", "50.0%"],
        ["1", "-", "-", "-", "-", "-"],
    ]


def test_load(capsys: pytest.CaptureFixture[str]) -> None:
    processors.show_load(r.LoadAverage(1.0, 0.255, 12.5))
    assert lines(capsys) == [
        "Load over 1 minute    1.00",
        "Load over 5 minutes   0.26",
        "Load over 15 minutes  12.50",
    ]


def test_processors_by_number() -> None:
    assert processors.numbers("1,3-5,4") == {1, 3, 4, 5}
    assert processors.numbers("") == set()
    assert max(processors.numbers("0-9999999")) == processors.MOST


def test_processors(capsys: pytest.CaptureFixture[str]) -> None:
    processors.show_processors([r.Processor(0, True), r.Processor(10, False, True)])
    assert lines(capsys)[2:] == ["  0   online    no", " 10   offline   yes"]


KEY = parse_key(f"ssh-ed25519 {BODY} me@home")


def test_a_key() -> None:
    fingerprint = "SHA256:mOywDW/bm1j88LfKql7uW18nQuWBqFB0acFM3Ot8Po4"  # by ssh-keygen
    assert Key(KEY.line, "ssh-ed25519", fingerprint, "me@home") == KEY
    with_options = parse_key(f'restrict,command="echo a b" ssh-ed25519 {BODY}')
    assert (with_options.fingerprint, with_options.comment) == (KEY.fingerprint, None)
    for line in ("garbage", "ssh-rsa AAAA=", ""):
        assert parse_key(line) == Key(line)


def test_a_key_is_the_same_with_other_options_and_comments() -> None:
    present = ["garbage", f"restrict ssh-ed25519 {BODY} other", "ssh-rsa AAAAB3Nz x"]
    assert same_keys(present, [KEY]) == present[1:2]
    assert same_keys(present, []) == []


def test_keys_in_files(tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# mine\n\n  {KEY.line}\n")
    assert list(read_keys([str(path)])) == [KEY]
    path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(ValueError, match=r"line 1 of .*keys is not an ssh public key"):
        list(read_keys([str(path)]))
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"cannot read .*keys"):
        list(read_keys([str(path)]))


def test_processors_are_listed_by_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    """The agent has them in the order of a directory of the kernel."""
    processors.show_processors([r.Processor(10, True), r.Processor(2, False), r.Processor(0, True)])
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0] for line in lines] == ["0", "2", "10"]


@pytest.mark.parametrize("columns", [1, 5, 19])
def test_no_cell_is_lost_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """rich would leave cells empty; the terminal breaks the lines."""
    screen = partial(Console, force_terminal=True, color_system=None, width=columns)
    monkeypatch.setattr(tables, "console", screen)
    show_table(("Mount", "Device", "Size"), [("/srv/backups", "vdb1", "1.5 GiB")], ("Size",))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["Mount", "Device", "Size"]
    assert shown[2].split() == ["/srv/", "vdb1", "1.5", "GiB"]
    assert shown[3:] == ["backu", "ps"]
    show_facts([("Guest clock", "2026-11-26"), ("Zone", "UTC")])
    assert lines(capsys)[:2] == ["Guest clock  2026-1", "             1-26"]
