"""Examples for the manual pages of the agent; tests give each of them to its own parsers."""

from __future__ import annotations

from typing import NamedTuple

COMMAND_LINES = (
    (
        "Serve the default port, org.qemu.guest_agent.0, and wait until it exists:",
        "qemu-ga --retry-path",
    ),
    (
        "Serve a unix socket, with the log and the state in the current directory:",
        "qemu-ga --method=unix-listen --path=qga.sock --logfile=qga.log --statedir=.",
    ),
    (
        "Serve vsock port 1234 in the background:",
        "qemu-ga --daemonize --method=vsock-listen --path=-1:1234",
    ),
    (
        "Run a hook script around each freeze (PATH must be attached to the option):",
        "qemu-ga --fsfreeze-hook=/usr/local/sbin/fsfreeze-hook",
    ),
    (
        "Refuse to run programs and to change passwords:",
        "qemu-ga --block-rpcs=guest-exec,guest-set-user-password",
    ),
    (
        "Turn command-line options into a configuration file:",
        "qemu-ga --block-rpcs=guest-exec --dump-conf >qemu-ga.conf",
    ),
    (
        "Find out why the host gets no answer:",
        "qemu-ga --doctor",
    ),
    (
        "Find out whether a request would be allowed, and which setting decides:",
        "qemu-ga --explain-policy guest-file-open path=/etc/shadow mode=r\n"
        'qemu-ga --explain-policy guest-exec path=systemctl \'arg=["restart", "nginx.service"]\'',
    ),
)
"""What each does, and the lines to type."""


class Pattern(NamedTuple):
    """A pattern, what it matches, and a text that it matches and one that it does not.

    For a rule with arguments, `yes` and `no` are command lines.
    """

    text: str
    meaning: str
    yes: str
    no: str


PATHS = (
    Pattern("/etc/hosts", "this path only", "/etc/hosts", "/etc/hosts.allow"),
    Pattern(
        "/etc/*.conf",
        "* matches any characters but /, including none",
        "/etc/host.conf",
        "/etc/ssh/sshd.conf",
    ),
    Pattern("/dev/tty?", "? matches one character but /", "/dev/tty1", "/dev/tty12"),
    Pattern("/dev/sd[ab]", "[ab] matches one of these characters", "/dev/sda", "/dev/sdc"),
    Pattern("/dev/sd[!ab]", "[!ab] matches one other character", "/dev/sdc", "/dev/sda"),
    Pattern("/srv/**/log", "** matches any characters", "/srv/a/b/log", "/srv/log"),
    Pattern("/var/log/", "a final / matches everything below", "/var/log/apt/term.log", "/var/log"),
)
"""Patterns of [files] read and write."""

PROGRAMS = (
    Pattern("/usr/bin/df", "any arguments", "/usr/bin/df -h /", "/usr/bin/du"),
    Pattern('/usr/bin/df ""', "no arguments", "/usr/bin/df", "/usr/bin/df -h"),
    Pattern(
        "/usr/bin/systemctl restart nginx.service",
        "exactly these arguments",
        "/usr/bin/systemctl restart nginx.service",
        "/usr/bin/systemctl restart ssh.service",
    ),
    Pattern(
        "/usr/bin/cat /var/log/*",
        "a pattern for each argument; here * also matches / and, with it, .. in paths",
        "/usr/bin/cat /var/log/apt/term.log",
        "/usr/bin/cat /etc/shadow",
    ),
    Pattern(
        "/usr/bin/ls -l ...",
        "any further arguments after these",
        "/usr/bin/ls -l /srv /tmp",
        "/usr/bin/ls /srv",
    ),
    Pattern(
        "/usr/bin/grep 'a*; b' ...",
        "quotes keep spaces and ; together, and wildcards in them are taken literally",
        "/usr/bin/grep 'a*; b' /srv/x",
        "/usr/bin/grep 'ax; b' /srv/x",
    ),
)
"""Rules of [exec] allow."""

CONFIGURATIONS = (
    (
        "A second channel, on which a monitoring system may only read system information:",
        "[general]\n"
        "block-rpcs=guest-exec\n"
        "\n"
        "[channel monitoring]\n"
        "method=virtio-serial\n"
        "path=/dev/virtio-ports/com.example.monitoring\n"
        "profile=audit",
    ),
    (
        "The host may read logs, replace the files of a web site, restart the web server and see "
        "how full the disks are, and nothing else that depends on files, programs, accounts or "
        "services:",
        "[files]\n"
        "read=/var/log/; /srv/www/\n"
        "write=/srv/www/\n"
        "\n"
        "[exec]\n"
        "allow=/usr/bin/systemctl restart nginx.service; /usr/bin/df ...\n"
        "\n"
        "[accounts]\n"
        "allow=\n"
        "\n"
        "[connect]\n"
        "allow=",
    ),
    (
        "Rules for one channel; rules can be repeated, one per line:",
        "[channel backup]\n"
        "method=vsock-listen\n"
        "path=-1:1234\n"
        "\n"
        "[files backup]\n"
        "read=/srv/\n"
        "read=/etc/**/*.conf\n"
        "write=\n"
        "\n"
        "[exec backup]\n"
        "allow=\n"
        "\n"
        "[accounts backup]\n"
        "allow=web-*\n"
        "\n"
        "[connect backup]\n"
        "allow=127.0.0.1:5432",
    ),
    (
        "Snapshots: stop the database with a hook, leave the scratch disk unfrozen, and thaw after "
        "two minutes at the latest:",
        "[general]\n"
        "fsfreeze-hook=/etc/qemu/fsfreeze-hook\n"
        "fsfreeze-hook-timeout=60\n"
        "fsfreeze-exclude=/mnt/scratch,/var/lib/docker/**\n"
        "freeze-timeout=120",
    ),
)
"""What each is for, and the text of a file."""
