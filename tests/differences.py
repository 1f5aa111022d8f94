"""Every intended difference from QEMU's agent, by name. docs/differences.md is made from this list.

A test that asserts a difference is marked with `@differs("name")`, or has a list of its own that
refers to the name. tests/unit/test_differences.py checks that this is so of each record.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, TypeVar

OLD, MIDDLE, NEW = "7.2.22", "10.0.13", "11.1.3"


class Record(NamedTuple):
    """A difference: of which releases of QEMU, what theirs does, what ours does, and why."""

    name: str
    group: str
    releases: tuple[str, ...]
    theirs: str
    ours: str
    why: str


def _group(name: str, *rows: tuple[str, tuple[str, ...], str, str, str]) -> list[Record]:
    return [Record(row[0], name, *row[1:]) for row in rows]


RECORDS = [
    *_group(
        "Requests and replies",
        (
            "parse-errors",
            (OLD,),
            "A parse error has no position and is reported when the brackets balance. After a "
            "limit is exceeded, the rest of the value is parsed as further requests.",
            "As QEMU 11.1: `LINE:COLUMN: ` before the text, reported when its token is complete. "
            "The rest of the value is skipped.",
            "QEMU changed it in 11.1.",
        ),
        (
            "member-order",
            (OLD, NEW),
            "Members of a reply, and of an echoed `id`, are in the order of a hash table.",
            "`return` or `error` comes first, then `id`. Results are in the order of the schema, "
            "an echoed `id` in the order sent.",
            "People read logs.",
        ),
        (
            "first-wrong-member",
            (OLD, NEW),
            "Of several unexpected members or arguments, the error names one by hash order.",
            "The error names the first one that was sent.",
            "The result does not depend on a hash function.",
        ),
        (
            "wrong-type-first",
            (OLD, NEW),
            "Of an unexpected member and one of the wrong type, the error names one by hash order.",
            "The error names the member of the wrong type.",
            "The result does not depend on a hash function.",
        ),
        (
            "number-out-of-range",
            (OLD, NEW),
            "A number that is too large for a double, such as `1e400`, is echoed as `inf`.",
            "It is refused: `JSON parse error, number out of range '1e400'`.",
            "A reply with `inf` is not JSON.",
        ),
        (
            "half-request",
            (OLD, NEW),
            "On a port, what a client sends after another client's half of a request is read as "
            "the rest of it, and not answered.",
            "A request that begins inside an unfinished value ends that value, without a reply to "
            "it. A fault that may be half a request is reported up to three tokens later.",
            "Proxmox VE sends requests that are cut short if they are not ASCII.",
        ),
        (
            "connection-of-its-own",
            (OLD, NEW),
            "A listening channel serves one client at a time, and what a client leaves unfinished "
            "is continued by the next one.",
            "A listening channel serves several clients, and each connection begins anew.",
            "Clients must not depend on each other.",
        ),
    ),
    *_group(
        "Commands",
        (
            "unsupported-commands",
            (OLD,),
            "`guest-get-devices` is there, but disabled.",
            "`The command guest-get-devices has not been found`.",
            "QEMU changed it in 9.1: a command that the system cannot offer does not exist.",
        ),
        (
            "new-commands",
            (OLD,),
            "`guest-get-load` and `guest-network-get-route` are missing.",
            "They are there.",
            "QEMU added them in 9.1 and 10.0.",
        ),
        (
            "order-of-commands",
            (OLD, NEW),
            "`guest-info` lists the commands of the last line of QEMU's schema first.",
            "It lists them by plug-in.",
            "Clients look a command up by its name.",
        ),
        (
            "exec-start-error",
            (OLD,),
            "A program that cannot be started: `Guest agent command failed, error was '…'`.",
            "`Failed to execute child process “PATH” (REASON)`.",
            "QEMU changed it in 10.0 or before.",
        ),
        (
            "unknown-pid",
            (OLD,),
            "`guest-exec-status` of an unknown process: `Invalid parameter 'pid'`.",
            "`PID 1 does not exist`.",
            "QEMU changed it in 8.2.",
        ),
        (
            "unknown-pid-number",
            (NEW,),
            "`guest-exec-status` of an unknown process: `PID ld does not exist`.",
            "The error gives the number.",
            "A fault of QEMU's: a `%` is missing.",
        ),
        (
            "capture-modes",
            (OLD,),
            "`capture-output` is a boolean.",
            "It may also be `none`, `stdout`, `stderr`, `separated` or `merged`. A wrong type is "
            "reported as `GuestExecCaptureOutput`.",
            "QEMU changed it in 8.1.",
        ),
        (
            "capture-one-stream",
            (NEW,),
            "After the second `capture-output` of `stdout` or `stderr`, later programs get wrong "
            "descriptors: input is missing and output is lost.",
            "Any number of programs can be run.",
            "A fault of QEMU's.",
        ),
        (
            "background-child",
            (OLD, NEW),
            "With captured output, `exited` stays false while a background process keeps the pipe "
            "open.",
            "`exited` is true when the program has exited.",
            "A client waits for the program that it started.",
        ),
        (
            "home-of-a-child",
            (OLD, NEW),
            "A program has `HOME`, `USER` and `LOGNAME` only if the agent has.",
            "They are set.",
            "Under systemd the agent has none of them, and many programs need `HOME`.",
        ),
        (
            "mode-of-a-new-file",
            (OLD, NEW),
            "`guest-file-open` creates files with mode 0666, whatever the umask.",
            "It creates them with mode 0644 less the umask.",
            "A new file must not be writable for everybody.",
        ),
        (
            "no-links-for-writing",
            (OLD, NEW),
            "`guest-file-open` follows a symbolic link when writing.",
            "It refuses, unless `follow-symlinks=true` is set in `[files]`.",
            "A user who can create a link must not choose what the agent writes to.",
        ),
        (
            "no-file-of-others-in-tmp",
            (OLD, NEW),
            "`guest-file-open` with `w` or `a` leaves it to the kernel (`fs.protected_regular`, "
            "`fs.protected_fifos`) whether it opens another user's file or FIFO in a directory "
            "such as /tmp.",
            "It refuses.",
            "That user must not get what the agent writes.",
        ),
        (
            "write-is-not-buffered",
            (OLD, NEW),
            "`guest-file-write` keeps the data until a flush, seek or close. So it succeeds on a "
            "full disk, past the largest offset, or on a file that refuses it. The flush or the "
            "close fails, a second close crashes the agent, or the data is lost.",
            "It writes at once, and fails itself.",
            "What is reported as written is written.",
        ),
        (
            "seek-of-devices",
            (OLD, NEW),
            "`guest-file-seek` on a device that cannot seek, such as /dev/urandom, reports the "
            "offset that was asked for, a part of it, or 0 for a negative one.",
            "It reports the position; a negative one is an error.",
            "Nothing was skipped.",
        ),
        (
            "environment-entries",
            (OLD, NEW),
            "Entries of `env` without a name or without `=` are passed to the program.",
            "They are left out.",
            "No program can look them up.",
        ),
        (
            "user-name-with-nul",
            (OLD, NEW),
            "A user name with U+0000 is passed to chpasswd(8).",
            "`forbidden characters in username`.",
            "What chpasswd(8) makes of it depends on its version.",
        ),
        (
            "key-with-nul",
            (OLD, NEW),
            "An SSH key with U+0000 is written to the file.",
            "`invalid OpenSSH public key: 'KEY'`.",
            "It hides the keys after it from QEMU's agent.",
        ),
        (
            "keys-that-cannot-be-read",
            (OLD, NEW),
            "A file of SSH keys is taken to end at U+0000. If it cannot be read, "
            "`guest-ssh-add-authorized-keys` replaces it.",
            "`failed to read 'PATH': REASON`; the file is left alone.",
            "Keys must not be lost.",
        ),
        (
            "key-file-lines",
            (OLD, NEW),
            "authorized_keys has no newline at its end, and an empty line between the keys of two "
            "requests.",
            "Each line ends with a newline.",
            "What `echo` appends must not become part of the last key.",
        ),
        (
            "vcpu-error",
            (OLD,),
            '`guest-set-vcpus` of an unknown CPU: `open("/sys/…/"): REASON`.',
            "`Could not open '/sys/…/': REASON`.",
            "QEMU changed it in 11.0.",
        ),
        (
            "password-reason",
            (OLD,),
            "`child process has failed to set user password`.",
            "The output of chpasswd(8) follows.",
            "QEMU changed it in 9.1.",
        ),
        (
            "negative-handles",
            (OLD, NEW),
            "A negative `fd_counter` in the state file gives negative handles.",
            "It counts as 0.",
            "A client takes a negative handle for an error.",
        ),
        (
            "fifo-both-ways",
            (OLD, NEW),
            "A FIFO that was read through a handle cannot be written through it: `failed to seek "
            "file: Illegal seek`.",
            "It can, if it was opened for both.",
            "A FIFO has no position.",
        ),
        (
            "key-file-on-the-way",
            (OLD, NEW),
            "A file of SSH keys is written as `PATH.XXXXXX` first, with random letters.",
            "It is written as `PATH.qga-PID` first.",
            "The name shows whose it is.",
        ),
        (
            "hardware-clock",
            (OLD, NEW),
            "`guest-set-time` without a time runs /sbin/hwclock. Without that program it fails, "
            "in 7.2 also with a time.",
            "It reads the hardware clock itself.",
            "Many guests lack the program.",
        ),
    ),
    *_group(
        "System information",
        (
            "total-bytes-privileged",
            (OLD,),
            "`guest-get-fsinfo` has no `total-bytes-privileged`.",
            "It has.",
            "QEMU added it in 9.1.",
        ),
        (
            "mounted-twice",
            (OLD,),
            "A filesystem that is mounted in several places is listed and trimmed for each.",
            "It is listed and trimmed once.",
            "QEMU changed it in 10.0.",
        ),
        (
            "counters-without-address",
            (OLD, NEW),
            "An interface without an address has no `statistics`.",
            "It has.",
            "The ports of a bridge have no address, but traffic.",
        ),
        (
            "unsigned-route",
            (NEW,),
            "`guest-network-get-route` reports numbers from 2147483648 on as negative ones, and "
            "`flags` of IPv6 as more than 2⁶³.",
            "It reports the kernel's numbers.",
            "The kernel's numbers are unsigned.",
        ),
        (
            "no-memory-blocks",
            (OLD, NEW),
            "In a guest whose kernel has no memory blocks, `guest-get-memory-blocks` is there and "
            "returns an empty list. The commands next to it fail.",
            "None of the three commands is there.",
            "Clients skip a command that does not exist.",
        ),
        (
            "memory-that-stays",
            (OLD, MIDDLE, NEW),
            "`can-offline` is true for memory blocks that the kernel never takes offline.",
            "It is false where `valid_zones` is `none`.",
            "A host that takes the first block would fail.",
        ),
        (
            "long-host-name",
            (OLD, NEW),
            "`guest-get-host-name` fails for a name of 64 characters.",
            "The name is returned.",
            "Linux allows 64 characters.",
        ),
        (
            "os-release-quotes",
            (OLD, NEW),
            "In os-release only double quotes quote, a backslash outside of them stays, and the "
            "value ends with them. A value without its closing quote is doubled.",
            "Values are read as systemd does: single quotes quote as well, a backslash outside of "
            "quotes is removed, and what follows quotes belongs to the value.",
            "os-release(5) allows them, as a shell does.",
        ),
        (
            "os-release-faults",
            (OLD, NEW),
            "A value without quotes ends at a blank or a semicolon. A file with a line that is "
            "neither `NAME=VALUE` nor a comment is not used, nor is what follows a line in "
            "brackets, or U+0000.",
            "The value is the whole line. Such a line is skipped.",
            "A name that is cut off, or missing, helps nobody.",
        ),
        (
            "scsi-target",
            (OLD, NEW),
            "`target` of a virtio-scsi disk is 0, and a `unit` above 255 is the kernel's number, "
            "such as 16684.",
            "They are the target, and the unit that the host gave the disk, such as 300.",
            "libvirt finds the disk by it.",
        ),
        (
            "pci-below-platform",
            (OLD, MIDDLE, NEW),
            "On a machine whose PCI controller is a platform device, such as `virt` of arm64, "
            "`domain` and `bus` of `pci-controller` are -1.",
            "They are those of the controller.",
            "libvirt finds the disk by it.",
        ),
        (
            "kinds-of-disks",
            (OLD, NEW),
            "A disk has a `bus-type` and a controller if the driver of the controller is one that "
            "QEMU's agent knows. Those of VMware, Hyper-V and Xen, and most of RAID, SAS, SATA and "
            "MMC controllers, are not among them.",
            "They are found by the place of the disk in sysfs, whatever the driver.",
            "Guests may come from other hypervisors, or have disks passed through.",
        ),
        (
            "partitions-of-arrays",
            (OLD, NEW),
            "`disk` of a filesystem on a partition of an array is empty.",
            "It has the disks of the array.",
            "A host finds the disks of each filesystem.",
        ),
        (
            "names-of-volumes",
            (OLD, NEW),
            "`alias` of a volume is the name that udev recorded.",
            "It is the kernel's name.",
            "udev may not run, or not know the volume.",
        ),
        (
            "odd-mounts",
            (OLD, NEW),
            "A mount point ends at a carriage return, vertical tab or form feed. A blank in a type "
            "is `\\040`.",
            "They are reported as they are.",
            "A fault of QEMU's.",
        ),
        (
            "routes-without-ipv6",
            (NEW,),
            "Where the kernel has no IPv6, `guest-network-get-route` fails: "
            '`open("/proc/net/ipv6_route"): No such file or directory`.',
            "It lists the routes of IPv4.",
            "Administrators turn IPv6 off.",
        ),
        (
            "usb-disks",
            (OLD,),
            "A USB disk has no `bus-type` and no controller.",
            "It has both.",
            "QEMU added it in 8.1.",
        ),
        (
            "time-zones",
            (OLD, NEW),
            "`guest-get-timezone`: the variable TZ is read by GLib. A rule without dates, such as "
            "`CET-1CEST`, is UTC, and a name has at most 32 characters.",
            "It is read by the C library.",
            "The answer is that of `date` in the guest.",
        ),
        (
            "long-user-name",
            (OLD, NEW),
            "`guest-get-users`: a user name of 32 characters continues with the name of the host.",
            "It ends there.",
            "A fault of QEMU's.",
        ),
        (
            "kernel-lines",
            (OLD, NEW),
            "In /proc and /sys, what no kernel writes, such as short lines, unexpected names of "
            "processors, or numbers that are too large, is read as scanf(3) does, ends a list, or "
            "is an error.",
            "Such lines and names are left out; the others are reported.",
            "One line must not hide the others.",
        ),
    ),
    *_group(
        "Freezing",
        (
            "slash-at-the-end",
            (OLD, NEW),
            "`guest-fsfreeze-freeze-list` ignores a mount point with a slash at its end.",
            "`/mnt/` is `/mnt`.",
            "A backup that freezes nothing is worth nothing.",
        ),
        (
            "mount-points-not-utf8",
            (OLD, NEW),
            "`guest-fsfreeze-freeze-list` ignores a mount point whose name is not UTF-8, since a "
            "host has U+FFFD for such bytes.",
            "It is frozen if the host gives its name as `guest-get-fsinfo` reports it.",
            "A backup that freezes nothing is worth nothing.",
        ),
        (
            "block-holds-while-frozen",
            (OLD, NEW),
            "While filesystems are frozen, commands of the safe list answer even if they are "
            "blocked.",
            "A blocked command stays blocked.",
            "A freeze must not give the host more than the administrator allows.",
        ),
        (
            "hook-named",
            (OLD, NEW),
            "A failing hook: `fsfreeze hook has failed with status 3`, or the words of a later "
            "release.",
            "The name of the script, its argument and its output follow.",
            "There may be many scripts in the directory of hooks.",
        ),
    ),
    *_group(
        "The program",
        (
            "socket-removed",
            (OLD, NEW),
            "The socket of `unix-listen` stays when the agent exits.",
            "It is removed.",
            "A socket that nobody listens on misleads clients.",
        ),
        (
            "only-dead-sockets",
            (OLD, NEW),
            "At the start any file at the path of the socket is removed.",
            "Only a socket that nobody listens on is replaced.",
            "A wrong path must not destroy a file or another agent's socket.",
        ),
        (
            "names-trimmed",
            (OLD, NEW),
            "Blanks around the names in `block-rpcs` and `allow-rpcs` count.",
            "They are ignored.",
            "`a, b` would leave b unblocked.",
        ),
        (
            "dump-absolute",
            (OLD, NEW),
            "`--dump-conf` prints paths as they were given.",
            "It prints absolute paths.",
            "A daemon works in /.",
        ),
        (
            "unknown-method",
            (OLD, NEW),
            "An unknown method is refused when the channel is opened.",
            "It is refused when the configuration is read.",
            "`--dump-conf` and `--doctor` find it, too.",
        ),
        (
            "version-without-configuration",
            (OLD, NEW),
            "`--version` and `--help` fail if the configuration file is invalid.",
            "They do not read it.",
            "They are needed most when something is wrong.",
        ),
        (
            "forms-of-messages",
            (OLD, NEW),
            "Messages begin with `SECONDS: critical: `, or with `** (process:PID): CRITICAL **: "
            "TIME: ` before the log is open. The levels are those of GLib.",
            "They begin with `qemu-ga: error: `, in a log file with `SECONDS: error: `. The "
            "levels are those of syslog.",
            "On a terminal, the program matters and not the time.",
        ),
        (
            "log-of-requests",
            (OLD, NEW),
            "With `-v` the log has the bytes that were read, and further messages. syslog, with "
            "the facility `user`, has `guest-exec called: …` and the like, also for `guest-ping`.",
            "There is one message for each request: channel, client, command, arguments, and "
            "result. syslog, with the facility `daemon`, has those that change something or are "
            "refused.",
            "People read logs.",
        ),
        (
            "mode-of-the-log",
            (OLD, NEW),
            "The log file is made with mode 0666 less the umask.",
            "It is made with mode 0640 less the umask.",
            "It quotes arguments of programs, which may be secret.",
        ),
        (
            "version-and-lists",
            (OLD, NEW),
            "`--version` prints one line. `--help` and `--block-rpcs=help` have QEMU's options "
            "and commands, in its order, as has the message about an ambiguous option. Of an "
            "option letter that is not ASCII, one byte is shown.",
            "A second line has the version of qga. The lists also have what is added, in an order "
            "of their own. The letter is shown.",
            "They are lists for people.",
        ),
        (
            "unwritten-output",
            (OLD, NEW),
            "Output of `--version` and others that cannot be written does not matter.",
            "It is an error, with exit status 1.",
            "The caller would take it for complete.",
        ),
        (
            "options-read-twice",
            (NEW,),
            "Options are read twice: an invalid one is reported twice, also behind `--version` or "
            "`--help`.",
            "It is reported once. What is behind `--version` or `--help` is not read.",
            "One message is enough.",
        ),
        (
            "list-at-once",
            (OLD, NEW),
            "`--block-rpcs=help` takes effect at once.",
            "It takes effect if all options are valid.",
            "A plug-in directory may follow, whose commands are listed.",
        ),
        (
            "blacklist",
            (NEW,),
            "The option `--blacklist` is unknown, and the key `blacklist` is ignored.",
            "They block commands, with a warning.",
            "An update must not allow what was blocked.",
        ),
        (
            "blacklist-adds",
            (OLD,),
            "The key `blacklist` replaces `block-rpcs`.",
            "It adds to it.",
            "No blocked command must be allowed.",
        ),
        (
            "dump-keys",
            (OLD, NEW),
            "`--dump-conf` always has `pidfile`, lists have their names in reverse, and blanks at "
            "the end of a value are not escaped.",
            "It has `pidfile` if such a file is written, the lists as they were given, escapes, "
            "and also our own keys.",
            "It is a configuration file with the same effect.",
        ),
        (
            "unknown-names",
            (OLD, NEW),
            "Unknown names in `block-rpcs` and `allow-rpcs` are ignored.",
            "They are ignored with a warning. What resembles a command's name, or cannot be one, "
            "such as `a=b`, stops the agent.",
            "A slip must not leave a command unblocked.",
        ),
        (
            "unknown-keys",
            (OLD, NEW),
            "Unknown keys and sections are ignored. A configuration error has no line.",
            "They are ignored with a warning, or refused if they seem to be about rules. An error "
            "names the line.",
            "A slip must not leave a command unblocked.",
        ),
        (
            "escape-in-a-list",
            (NEW,),
            "An invalid escape in `block-rpcs` or `allow-rpcs` crashes the agent.",
            "It is an error with its line.",
            "A fault of QEMU's.",
        ),
        (
            "empty-values",
            (OLD, NEW),
            "An empty path, such as `--logfile=`, is used as it is, and mostly fails.",
            "It means the default.",
            "It undoes the setting in the file.",
        ),
        (
            "start-errors",
            (OLD, NEW),
            "A missing path, an unusable state file or directory, log file, vsock address or "
            "socket path have their own words. With a log file they are in it alone.",
            "The words name the file and what would be right. They also go to standard error.",
            "Whoever starts the agent sees why it does not start.",
        ),
        (
            "only-ports",
            (OLD, NEW),
            "`virtio-serial` and `isa-serial` open any file.",
            "They open a port or a serial line.",
            "On another file no host can be heard.",
        ),
        (
            "pid-file-in-foreground",
            (OLD, NEW),
            "Without `-d`, no PID file is written.",
            "It is written and locked if `-f` is given.",
            "An explicit option should have an effect.",
        ),
        (
            "daemon-status",
            (OLD, NEW),
            "With `-d`, the exit status is 0 though the PID file cannot be written.",
            "The exit status is 1.",
            "The status should show whether the agent runs.",
        ),
        (
            "umask-of-programs",
            (OLD, NEW),
            "With `-d`, the programs that `guest-exec` runs have the umask 0077.",
            "They have the umask that the agent was started with.",
            "They make the same files as without `-d`.",
        ),
        (
            "other-signals",
            (OLD, NEW),
            "SIGHUP and SIGALRM end the agent.",
            "SIGHUP opens the log file again, for logrotate(8). SIGALRM has no effect.",
            "Nobody but the agent thaws what it has frozen.",
        ),
        (
            "stale-marker",
            (OLD, NEW),
            "With a marker of frozen filesystems at the start, commands are refused until "
            "`guest-fsfreeze-thaw`.",
            "The marker is ignored, with a warning, if no filesystem is frozen.",
            "After a crash the guest can be managed.",
        ),
        (
            "waiting-for-a-channel",
            (OLD, NEW),
            "With `-r`, each attempt to open the channel is reported. SIGTERM meanwhile gives "
            "exit status 1.",
            "The first one is reported as a warning. SIGTERM gives 0.",
            "Waiting is what was asked for.",
        ),
        (
            "socket-activation",
            (OLD, NEW),
            "LISTEN_FDS of 0 or none is ignored, and a socket that does not listen is taken. More "
            "than one: `qemu-ga only supports listening on one socket`.",
            "All are refused: `socket activation passed 2 sockets; one is expected`.",
            "Otherwise the agent would listen where nobody connects.",
        ),
    ),
]

BY_NAME = {record.name: record for record in RECORDS}

Test = TypeVar("Test", bound=Callable[..., object])


def differs(*names: str) -> Callable[[Test], Test]:
    """Marks a test that asserts the differences of these names."""
    for name in names:
        BY_NAME[name]
    return lambda test: test


HEADING = """\
# Differences from QEMU's agent

Generated by `make docs` from `tests/differences.py`. Do not edit. Every row is asserted by a test.

qga is compared with QEMU's guest agent 11.1.3, and with 7.2.22, which Debian 12 has. What depends
on hardware is compared in guests, there also with 10.0.13 of Debian 13, and with made-up files in
/sys and /proc. Commands, arguments, results and error messages are the same, apart from what is
listed here. Commands whose names begin with `qga-` are additions and are not listed.
"""


def page() -> str:
    """docs/differences.md."""
    text = HEADING
    for group in dict.fromkeys(record.group for record in RECORDS):
        text += f"\n## {group}\n\n| QEMU | QEMU's agent | qga | why |\n|---|---|---|---|\n"
        text += "".join(map(_row, (record for record in RECORDS if record.group == group)))
    return text


def _row(record: Record) -> str:
    releases = ", ".join(record.releases)
    return f"| {releases} | {record.theirs} | {record.ours} | {record.why} |\n"


if __name__ == "__main__":
    print(page(), end="")
