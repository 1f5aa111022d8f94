"""Any text as qemu-ga.conf.

- It is read, or refused with a text that names the file and the line.
- What --dump-conf makes of it reads back to the same configuration, without a complaint.
- Any value survives being written into a file.
"""

from __future__ import annotations

import re

from qga.errors import ConfigError
from qga.settings import config, configfile, keyfile
from qga.settings.config import Config
from qga.settings.configfile import ConfigFile
from qga.settings.dump import dump

PATH = "/etc/qemu/qemu-ga.conf"
_REFUSAL = re.compile(re.escape(f"error loading configuration from path: {PATH}, line ") + r"(\d+)")


def test_one(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    check_value(text)
    lines = text.count("\n") + 1
    try:
        file = configfile.parse(text, PATH)
    except ConfigError as refusal:
        named = _REFUSAL.match(str(refusal))
        assert named, refusal
        assert 1 <= int(named[1]) <= lines, refusal
        return
    for warning in file.warnings:
        assert warning.startswith(f"{PATH}, line "), warning
    check_dump(file)


def check_value(text: str) -> None:
    value = text.replace("\0", "")
    (group,) = keyfile.parse(f"[x]\nkey={keyfile.encode(value)}\n").values()
    assert keyfile.decode(group.entries["key"].raw) == value


def check_dump(file: ConfigFile) -> None:
    try:
        built = config.build(file.general, file.channels)
    except ConfigError as refusal:
        assert str(refusal)
        return
    dumped = dump(built)
    again = configfile.parse(dumped, PATH)
    assert not again.warnings, again.warnings
    rebuilt: Config = config.build(again.general, again.channels)
    assert rebuilt == built, dumped
