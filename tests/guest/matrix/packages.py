"""Install and remove our package and the release's, and find out which agent runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.guest.agent_socket import AgentSocket
from tests.guest.package import PACKAGE, put
from tests.guest.service import wait_for
from tests.guest.vm import Guest
from tests.packaging.built import CHECKOUT, debs, output

ORIGINAL = "/root/qemu-guest-agent_*.deb"
APT = "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes"
# The processes of agents but the hand: id and command line. The kernel names a process by its
# script, so that ours have the same name as the original's. One program looks through all.
PROCESSES = r"""
for name in $(grep -slx qemu-ga /proc/[0-9]*/comm); do
    folder=${name%/comm}
    line=$(tr '\0' ' ' <$folder/cmdline 2>/dev/null) || continue
    case $line in *org.qemu.guest_agent.original* | "") ;; *) echo "${folder#/proc/} $line" ;; esac
done
"""
OURS = ("/usr/bin/python3 -ISXutf8 /usr/sbin/qemu-ga", "/opt/qga/bin/python")
BY_PIP = r"""
cd /root/wheels
python3 -m venv --system-site-packages /opt/qga
/opt/qga/bin/pip install --quiet --no-index --find-links=. qga
systemctl stop qemu-guest-agent
sed 's|^ExecStart=/usr/sbin/|ExecStart=/opt/qga/bin/|' qemu-guest-agent.service \
    >/etc/systemd/system/qemu-guest-agent.service
systemctl daemon-reload
systemctl enable --now qemu-guest-agent
"""


def shell(guest: Guest, script: str, *, check: bool = True) -> str:
    """The output of a shell script in the guest, both streams."""
    argv = ["/bin/sh", "-ec", f"exec 2>&1; {script}"]
    return guest.run(argv, timeout=600, check=check).stdout


def install(guest: Guest) -> None:
    """Install our package from a file with apt."""
    put(guest, debs().agent, PACKAGE)
    shell(guest, f"{APT} install {PACKAGE}")


def install_by_pip(guest: Guest) -> None:
    """Install our code with pip, and start it by our unit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [str(CHECKOUT / ".venv/bin/pip"), "--quiet", "--disable-pip-version-check"]
        output(*pip, "wheel", "--no-deps", "--wheel-dir", name, CHECKOUT)
        version = ["--python-version=3.9", "--only-binary=:all:", f"--dest={name}"]
        output(*pip, "download", "--no-deps", *version, "psutil", "pyserial")
        for file in [*folder.iterdir(), CHECKOUT / "systemd/qemu-guest-agent.service"]:
            guest.run(["mkdir", "-p", "/root/wheels"])
            put(guest, file, f"/root/wheels/{file.name}")
    shell(guest, BY_PIP)


def processes(guest: Guest) -> dict[int, str]:
    """The command lines of the running agents but the one that controls the guest, by process."""
    lines = shell(guest, PROCESSES).splitlines()
    return {int(line.split()[0]): line.partition(" ")[2].strip() for line in lines}


def the_process(guest: Guest) -> int:
    """The process of the only running agent, which must be ours."""
    [(pid, command)] = processes(guest).items()
    assert command.startswith(OURS), command
    return pid


def wait_until_ours_serves(guest: Guest) -> None:
    """Wait until our agent answers on the host's port."""

    def is_ours() -> bool:
        running = processes(guest).values()
        return len(running) == 1 and all(each.startswith(OURS) for each in running)

    wait_for(is_ours, "our agent", timeout=120)
    with guest.connect() as agent:
        assert "qga-get-metrics" in commands(agent)


def commands(agent: AgentSocket) -> set[str]:
    return {each["name"] for each in agent.execute("guest-info")["supported_commands"]}
