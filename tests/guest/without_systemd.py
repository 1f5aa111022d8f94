"""Guests without systemd: changes to the root filesystem before init runs.

systemd's programs are removed. A script starts the agents and creates the links to their ports,
which udev would create otherwise.
"""

from __future__ import annotations

from .vm import AGENT_PORT, ORIGINAL_PORT

START = f"""\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir /run/original
mount -t ext4 -o ro /dev/vdb /opt/qga
modprobe virtio_console
mkdir /dev/virtio-ports
cd /dev/virtio-ports
until [ -e {AGENT_PORT.name} ] && [ -e {ORIGINAL_PORT.name} ]; do
    sleep 0.1
    for port in /sys/class/virtio-ports/*; do
        ln -sf "../${{port##*/}}" "$(cat "$port/name")"
    done
done
/opt/qga/qemu-ga &
/usr/sbin/qemu-ga --path=/dev/virtio-ports/{ORIGINAL_PORT.name} --statedir=/run/original &
"""
# It says on the console that it was init who shut the guest down.
INITTAB = """\
::sysinit:/start
::shutdown:/bin/busybox echo init shuts down >/dev/console
"""


def program(path: str, text: str) -> str:
    """The commands that write an executable file; its path is that in the root, without `/`."""
    return f"/bin/busybox cat >{path} <<'END'\n{text}END\n/bin/busybox chmod 755 {path}\n"


def noting_program(name: str) -> str:
    """BusyBox's program of this name, which first prints its name on the console."""
    text = f"#!/bin/sh\necho {name} was called >/dev/console\nexec busybox {name}\n"
    return program(f"sbin/{name}", text)


OF_SYSTEMD = "bin/systemctl sbin/init sbin/poweroff sbin/halt sbin/reboot sbin/shutdown"
WITHOUT_SYSTEMD = f"/bin/busybox rm -f {OF_SYSTEMD}\n{program('start', START)}"

BUSYBOX_INIT = (
    f"{WITHOUT_SYSTEMD}/bin/busybox ln -s /bin/busybox sbin/init\n{program('etc/inittab', INITTAB)}"
)
BUSYBOX = BUSYBOX_INIT + "".join(map(noting_program, ("poweroff", "halt", "reboot")))

ANOTHER_INIT = WITHOUT_SYSTEMD + program(
    "sbin/init", "#!/bin/busybox sh\n/start\nwhile true; do sleep 1000; done\n"
)
