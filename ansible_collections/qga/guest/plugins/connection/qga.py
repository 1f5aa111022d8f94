"""Runs tasks in a guest through its agent: see DOCUMENTATION.

What must stay true: a program in the guest ends when its task does, and nothing is written as root
on behalf of another user.
"""

from __future__ import annotations

DOCUMENTATION = """
name: qga
short_description: Run tasks in QEMU guests through the guest agent
version_added: 0.2.0
author: qga maintainers
description:
  - Runs tasks and copies files through the guest agent. The guest needs neither a network nor an
    ssh server.
  - Works with qga and, where noted, with QEMU's own agent. The guest needs Python for most modules.
requirements:
  - The Python library qga, for the Python that runs Ansible.
  - The Python module of libvirt for guests that libvirt runs.
options:
  remote_addr:
    description:
      - The name of a guest on this host, or an address such as C(libvirt:DOMAIN),
        C(libvirt:qemu+ssh://root@host/system/DOMAIN), C(unix:PATH), C(vsock:CID:PORT) or
        C(proxmox:VMID).
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_qga_address
  remote_user:
    description:
      - The user whose programs and files these are. The agent runs as root and becomes this user.
      - With QEMU's own agent, the guest needs C(setpriv).
    type: str
    default: root
    ini:
      - section: defaults
        key: remote_user
    env:
      - name: ANSIBLE_REMOTE_USER
    vars:
      - name: ansible_user
    cli:
      - name: user
    keyword:
      - name: remote_user
  timeout:
    description:
      - Seconds to wait for each answer of the agent, and for privilege escalation. A program may
        run longer.
    type: int
    default: 10
    ini:
      - section: defaults
        key: timeout
    env:
      - name: ANSIBLE_TIMEOUT
    vars:
      - name: ansible_qga_timeout
    cli:
      - name: timeout
  executable:
    description: The shell in the guest that runs commands.
    type: str
    default: /bin/sh
    ini:
      - section: defaults
        key: executable
    env:
      - name: ANSIBLE_EXECUTABLE
    vars:
      - name: ansible_executable
  pipelining:
    description:
      - Pass modules to Python's standard input instead of copying them to files first.
    type: bool
    default: true
    ini:
      - section: qga_connection
        key: pipelining
    env:
      - name: ANSIBLE_QGA_PIPELINING
    vars:
      - name: ansible_pipelining
      - name: ansible_qga_pipelining
"""

import os
import posixpath
import re
import sys
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound
from ansible.plugins.connection import ConnectionBase, ensure_connect
from ansible.utils.display import Display

try:
    from ansible_collections.qga.guest.plugins.plugin_utils import as_root, as_user, escalation
    from qga.client import AgentError, CopyError, GuestAgent, copy_from, copy_to
    from qga.client.texts import printable

    MISSING = ""
except ImportError as error:
    MISSING = f"{error}: install qga for {sys.executable}, for example with pip install qga"

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

AGENTS_USER = "root"

TEMPLATE = re.compile("(?<={)(?=[{%#])")
"""Where a template of Jinja would begin."""

display = Display()


class Connection(ConnectionBase):
    """One guest, and the user whose programs run there."""

    transport = "qga.guest.qga"
    has_pipelining = True
    _connected: bool

    def _connect(self) -> Connection:
        if self._connected:
            return self
        if MISSING:
            raise AnsibleConnectionFailure(MISSING)
        self._address = self.get_option("remote_addr")
        self._user = self.get_option("remote_user") or AGENTS_USER
        display.vvv(f"CONNECT TO THE AGENT AS {self._user}", host=self._address)
        self._agent = self._reported(self._opened)
        self._connected = True
        return self

    def _opened(self) -> GuestAgent:
        return GuestAgent(self._address, self.get_option("timeout")).__enter__()

    @ensure_connect
    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        display.vvv(f"EXEC {cmd}", host=self._address)
        argv = as_user.in_home(self.get_option("executable"), cmd)
        expects_prompt = sudoable and self.become and self.become.expect_prompt()
        run = self._run_with_password if expects_prompt else self._run
        result = self._reported(lambda: run(argv, in_data or b""))
        if result.stdout_truncated or result.stderr_truncated:
            display.warning(f"{self._address}: only the first 16 MiB of the output are kept")
        return result.returncode, result.stdout, result.stderr

    def _run(self, argv: list[str], data: bytes) -> Any:
        return self._agent.exec(argv, input=data, user=self._user)

    def _run_with_password(self, argv: list[str], data: bytes) -> Any:
        timeout = self.get_option("timeout")
        return escalation.run(self._agent, argv, self._user, data, self.become, timeout)

    @ensure_connect
    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)
        display.vvv(f"PUT {in_path} TO {out_path}", host=self._address)
        if not os.path.exists(in_path):
            raise AnsibleFileNotFound(f"no such file: {in_path}")
        if self._user != AGENTS_USER:
            self._reported(lambda: as_user.put(self._agent, self._user, in_path, out_path), in_path)
        elif not (self._is_ours(out_path) and self._put_in_place(in_path, out_path)):
            self._copied(lambda: copy_to(self._agent, [in_path], out_path), in_path)

    def _put_in_place(self, in_path: str, out_path: str) -> bool:
        return self._reported(lambda: as_root.put(self._agent, in_path, out_path), in_path)

    def _is_ours(self, path: str) -> bool:
        """Whether this is in the directory of the task, which only root can enter.

        Ansible makes the directory, and gives it away if the task becomes somebody else.
        """
        options = {"playcontext": self._play_context}
        becomes = self.become and self.become.get_option("become_user", **options)
        folder = posixpath.join(posixpath.dirname(path), "")
        return (becomes or AGENTS_USER) == AGENTS_USER and folder == self._shell.tmpdir

    @ensure_connect
    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)
        display.vvv(f"FETCH {in_path} TO {out_path}", host=self._address)
        if self._user != AGENTS_USER:
            self._reported(
                lambda: as_user.fetch(self._agent, self._user, in_path, out_path), out_path
            )
        elif not self._fetched_as_root(in_path, out_path):
            self._copied(lambda: copy_from(self._agent, [in_path], out_path), out_path)

    def _fetched_as_root(self, in_path: str, out_path: str) -> bool:
        return self._reported(lambda: as_root.fetch(self._agent, in_path, out_path), out_path)

    def _copied(self, copy: Callable[[], Any], local: str) -> None:
        summary = self._reported(copy, local)
        for path, reason in summary.skipped:
            raise AnsibleError(harmless(f"{self._address}: {path} was not copied: {reason}"))
        for note in summary.notes:
            display.warning(harmless(f"{self._address}: {note}"))
        display.vvv(f"COPIED THROUGH {summary.port or 'the agent'}", host=self._address)

    def _reported(self, work: Callable[[], T], local: str = "this machine") -> T:
        """Whatever the agent reports makes the guest unreachable, except an error of a file.

        local: the file of this machine, which an error of writing does not name.
        """
        try:
            return work()
        except CopyError as error:  # of a file: the guest answers
            raise AnsibleError(harmless(str(error))) from None
        except (AgentError, ValueError) as error:
            # Its cause would be printed as it is.
            raise AnsibleConnectionFailure(harmless(str(error))) from None
        except OSError as error:  # of a file on this machine
            raise AnsibleError(f"{error.filename or local}: {error.strerror}") from None

    def reset(self) -> None:
        self.close()
        self._connect()

    def close(self) -> None:
        if self._connected:
            self._agent.close()
            self._connected = False


def harmless(text: str) -> str:
    """A text with words of the guest: ansible-core 2.14 evaluates templates in errors."""
    return TEMPLATE.sub(" ", printable(text))
