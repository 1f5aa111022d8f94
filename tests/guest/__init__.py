"""The agent in a real guest: Debian under QEMU, on the port that libvirt gives a guest.

    make guest

builds the image (once; a minute, as root), boots it, prints its sockets and the line that makes
qgactl use it in another terminal, and waits for ^C.

What the modules are for: `image` makes the disks, `vm` runs QEMU, `qmp` and `agent_socket` speak to
the machine and to an agent, `service` manages the agent under test inside the guest, `conftest`
boots one guest for all tests.  The code under test is on a disk of its own, made from the checkout
at every boot; what is installed in the guest is in `image.PACKAGES` and `rootfs/`.

QGA_TEST_ACCEL=kvm boots in a second or two where KVM works; the default is TCG, which works
everywhere.
"""
