"""The standard commands by group, and how their traits differ from the defaults.

Made from the code by `make docs`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# fmt: off
GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "disks.Disks": {
        "guest-get-disks": {"access": "audit", "blocking": True},
        "guest-get-diskstats": {"access": "audit"},
    },
    "events.Events": {
        "qga-watch": {"access": "audit", "blocking": True, "changes": True},
    },
    "exec.Exec": {
        "guest-exec": {"access": "unrestricted", "blocking": True, "changes": True, "secret": ("input-data", "env=")},
        "guest-exec-status": {"access": "unrestricted"},
    },
    "files.Files": {
        "guest-file-open": {"access": "file-read", "blocking": True, "changes": True},
        "guest-file-close": {"access": "file-read", "blocking": True},
        "guest-file-read": {"access": "file-read", "blocking": True},
        "guest-file-write": {"access": "file-write", "blocking": True, "changes": True, "continues": "handle", "secret": ("buf-b64",)},
        "guest-file-seek": {"access": "file-read", "blocking": True},
        "guest-file-flush": {"access": "file-read"},
    },
    "filesystems.Filesystems": {
        "guest-get-fsinfo": {"access": "audit", "blocking": True},
        "guest-fstrim": {"access": "filesystem", "blocking": True, "changes": True},
    },
    "freeze.Freeze": {
        "guest-fsfreeze-status": {"access": "filesystem", "frozen": True, "timed": False},
        "qga-get-freeze": {"access": "filesystem", "frozen": True, "floats": True},
        "guest-fsfreeze-freeze": {"access": "filesystem", "blocking": True, "timed": False, "changes": True},
        "guest-fsfreeze-freeze-list": {"access": "filesystem", "blocking": True, "timed": False, "changes": True},
        "guest-fsfreeze-thaw": {"access": "filesystem", "blocking": True, "frozen": True, "timed": False, "changes": True},
    },
    "growing.Growing": {
        "qga-grow-filesystem": {"access": "unrestricted", "blocking": True, "timed": False, "changes": True, "secret": ("passphrase",)},
    },
    "info.Info": {
        "guest-info": {"access": "audit", "frozen": True},
        "qga-get-version": {"access": "audit", "frozen": True},
    },
    "liveness.Liveness": {
        "guest-sync": {"access": "audit", "frozen": True, "overtakes": True},
        "guest-sync-delimited": {"access": "audit", "frozen": True, "delimited": True, "overtakes": True},
        "guest-ping": {"access": "audit", "frozen": True},
    },
    "memory.Memory": {
        "guest-get-memory-blocks": {"access": "audit", "available": "/sys/devices/system/memory/block_size_bytes"},
        "guest-set-memory-blocks": {"access": "unrestricted", "blocking": True, "available": "/sys/devices/system/memory/block_size_bytes", "changes": True},
        "guest-get-memory-block-info": {"access": "audit", "available": "/sys/devices/system/memory/block_size_bytes"},
    },
    "metrics.Metrics": {
        "qga-get-memory": {"access": "audit", "blocking": True},
        "qga-get-metrics": {"access": "audit", "blocking": True, "floats": True},
    },
    "network.Network": {
        "guest-network-get-interfaces": {"access": "audit"},
        "guest-network-get-route": {"access": "audit"},
    },
    "power.Power": {
        "guest-shutdown": {"access": "unrestricted", "blocking": True, "success_response": False, "changes": True},
        "qga-shutdown": {"access": "unrestricted", "blocking": True, "success_response": False, "changes": True, "like": ("guest-shutdown",)},
        "guest-suspend-disk": {"access": "unrestricted", "blocking": True, "success_response": False, "changes": True},
        "guest-suspend-ram": {"access": "unrestricted", "blocking": True, "success_response": False, "changes": True},
        "guest-suspend-hybrid": {"access": "unrestricted", "blocking": True, "success_response": False, "changes": True},
    },
    "processors.Processors": {
        "guest-get-vcpus": {"access": "audit"},
        "guest-set-vcpus": {"access": "unrestricted", "blocking": True, "changes": True},
        "guest-get-cpustats": {"access": "audit"},
        "guest-get-load": {"access": "audit", "floats": True},
    },
    "readiness.Readiness": {
        "qga-get-readiness": {"access": "audit", "blocking": True},
    },
    "restore.Restore": {
        "qga-resync": {"access": "unrestricted", "blocking": True, "changes": True, "secret": ("entropy",), "like": ("guest-set-time",)},
        "qga-set-identity": {"access": "unrestricted", "blocking": True, "timed": False, "changes": True, "secret": ("entropy",)},
    },
    "ssh.Ssh": {
        "guest-ssh-get-authorized-keys": {"access": "unrestricted", "blocking": True},
        "guest-ssh-add-authorized-keys": {"access": "unrestricted", "blocking": True, "changes": True, "secret": ("keys",)},
        "guest-ssh-remove-authorized-keys": {"access": "unrestricted", "blocking": True, "changes": True, "secret": ("keys",)},
    },
    "streams.Streams": {
        "qga-exec": {"access": "unrestricted", "blocking": True, "changes": True, "secret": ("env=",), "like": ("guest-exec",)},
        "qga-exec-read": {"access": "unrestricted", "like": ("guest-exec",)},
        "qga-exec-write": {"access": "unrestricted", "secret": ("buf-b64",), "like": ("guest-exec",)},
        "qga-exec-signal": {"access": "unrestricted", "changes": True, "like": ("guest-exec",)},
        "qga-exec-resize": {"access": "unrestricted", "like": ("guest-exec",)},
    },
    "system.System": {
        "guest-get-host-name": {"access": "audit"},
        "guest-get-osinfo": {"access": "audit"},
    },
    "time.Time": {
        "guest-get-time": {"access": "audit"},
        "guest-get-timezone": {"access": "audit"},
        "guest-set-time": {"access": "unrestricted", "blocking": True, "changes": True},
    },
    "transfer.Transfer": {
        "qga-get-ports": {"access": "audit", "blocking": True},
        "qga-open-vsock-port": {"access": "file-read", "blocking": True, "changes": True},
        "qga-file-send": {"access": "file-read", "blocking": True, "timed": False, "changes": True, "like": ("guest-file-open", "guest-file-read")},
        "qga-file-receive": {"access": "file-write", "blocking": True, "timed": False, "changes": True, "like": ("guest-file-open", "guest-file-write")},
        "qga-file-checksum": {"access": "file-read", "blocking": True, "timed": False, "changes": True, "like": ("guest-file-open", "guest-file-read")},
    },
    "tunnels.Tunnels": {
        "qga-tunnel": {"access": "unrestricted", "blocking": True, "changes": True, "like": ("guest-exec",)},
        "qga-connect": {"access": "unrestricted", "blocking": True, "changes": True, "like": ("guest-exec",)},
        "qga-tunnel-exchange": {"access": "unrestricted", "secret": ("buf-b64",), "like": ("guest-exec",)},
        "qga-tunnel-close": {"access": "unrestricted", "like": ("guest-exec",)},
    },
    "users.Users": {
        "guest-get-users": {"access": "audit", "floats": True},
        "guest-set-user-password": {"access": "unrestricted", "blocking": True, "changes": True, "secret": ("password",)},
    },
}
