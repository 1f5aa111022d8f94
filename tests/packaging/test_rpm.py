"""The RPM packages: files, scriptlets, dependencies, and programs that run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.built import CHECKOUT, loaded_by_the_page, output, rpms
from tests.packaging.roots import Root

pytestmark = pytest.mark.timeout(300)

AGENT_FILES = {
    "/etc/qemu-ga/fsfreeze-hook": "-rwxr-xr-x",
    "/etc/qemu-ga/fsfreeze-hook.d": "drwxr-xr-x",
    "/etc/qemu-ga/qemu-ga.conf": "-rw-r--r--",
    "/etc/sysconfig/qemu-ga": "-rw-r--r--",
    "/usr/bin/qemu-ga": "-rwxr-xr-x",
    "/usr/lib/systemd/system/qemu-guest-agent.service": "-rw-r--r--",
    "/usr/lib/systemd/system/qemu-guest-agent-vsock.service": "-rw-r--r--",
    "/usr/lib/systemd/system/qemu-guest-agent-vsock.socket": "-rw-r--r--",
    "/usr/lib/udev/rules.d/99-qemu-guest-agent.rules": "-rw-r--r--",
    "/usr/share/bash-completion/completions/qemu-ga": "-rw-r--r--",
    "/usr/share/fish/vendor_completions.d/qemu-ga.fish": "-rw-r--r--",
    "/usr/share/man/man5/qemu-ga.conf.5.gz": "-rw-r--r--",
    "/usr/share/man/man8/qemu-ga.8.gz": "-rw-r--r--",
    "/usr/share/qga/80-online-hotplugged.rules": "-rw-r--r--",
    "/usr/share/qga/hardened.conf": "-rw-r--r--",
    "/usr/share/qga/hooks/mariadb": "-rwxr-xr-x",
    "/usr/share/qga/qga/commands/freeze.py": "-rw-r--r--",
    "/usr/share/zsh/site-functions/_qemu-ga": "-rw-r--r--",
}
CLIENT_FILES = {
    "/usr/bin/qgactl",
    "/usr/lib/systemd/system/qgactl-exporter.service",
    "/usr/lib/sysusers.d/qgactl.conf",
    "/usr/share/ansible/collections/ansible_collections/qga/guest/galaxy.yml",
    "/usr/share/man/man1/qgactl.1.gz",
    "/usr/share/polkit-1/rules.d/60-qgactl-exporter.rules",
    "/usr/share/qgactl/checkmk/qga",
    "/usr/share/qgactl/grafana/qga.json",
    "/usr/share/qgactl/zabbix/qga.conf",
}
PAGE_FILES = {
    "/usr/share/cockpit/qga/index.html",
    "/usr/share/cockpit/qga/manifest.json",
    "/usr/share/cockpit/qga/vendor/patternfly.css",
    "/usr/share/cockpit/qga/vendor/xterm.js",
}
CONFIGURATION = {
    "/etc/qemu-ga/fsfreeze-hook",
    "/etc/qemu-ga/qemu-ga.conf",
    "/etc/sysconfig/qemu-ga",
}


def query(package: Path, *options: str) -> list[str]:
    return output("rpm", "--query", "--package", *options, package).splitlines()


def script(package: Path, name: str) -> str:
    return output("rpm", "--query", "--package", "--queryformat", f"%{{{name}}}", package)


@pytest.fixture(scope="module", name="agent_root")
def agent_root_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    folder = tmp_path_factory.mktemp("rpm")
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    unpack = 'rpm2cpio "$1" | cpio --quiet --extract --make-directories'
    output("/bin/sh", "-ec", unpack, "sh", rpms().agent, cwd=str(unpacked))
    yield Root(folder, unpacked)


def test_rpmlint_is_silent() -> None:
    config = CHECKOUT / "packaging/rpm/rpmlint.toml"
    spec = CHECKOUT / "packaging/rpm/qga.spec"
    told = output("rpmlint", "--config", config, *rpms(), spec)
    assert "0 errors, 0 warnings" in told


def test_files() -> None:
    lines = query(rpms().agent, "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]")
    modes = {line.split()[1]: line.split()[0] for line in lines}
    assert {path: modes.get(path) for path in AGENT_FILES} == AGENT_FILES
    assert "/usr/bin/qgactl" not in modes
    client = set(query(rpms().client, "-l"))
    assert client >= CLIENT_FILES
    assert any(path.endswith(".dist-info/entry_points.txt") for path in client)
    assert set(query(rpms().page, "-l")) >= PAGE_FILES | loaded_by_the_page()


def test_every_page_is_in_both_packages() -> None:
    pages = {page.name for page in (CHECKOUT / "docs").glob("*.md")}
    for package in rpms()[:2]:
        documentation = query(package, "--docfiles")
        assert {Path(path).name for path in documentation if "/docs/" in path} >= pages


def test_the_packages_share_no_file() -> None:
    paths = [path for package in rpms() for path in query(package, "-l")]
    assert len(paths) == len(set(paths))


def test_configuration_is_never_replaced() -> None:
    assert set(query(rpms().agent, "--configfiles")) == CONFIGURATION
    flags = query(rpms().agent, "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]")
    assert {line.split()[0] for line in flags if line.endswith(" cn")} == CONFIGURATION


def test_dependencies() -> None:
    required = set(query(rpms().agent, "--requires"))
    assert required >= {
        "/usr/bin/python3",
        "python3 >= 3.9",
        "python3-psutil",
        "python3-pyserial",
        "python3-systemd",
        "systemd",
    }
    assert not [name for name in required if name.startswith("python(abi)")]
    assert "qemu-guest-agent" in query(rpms().agent, "--conflicts")
    assert any(name.startswith("qemu-guest-agent = ") for name in query(rpms().agent, "--provides"))
    assert "cockpit-bridge >= 287" in query(rpms().page, "--requires")
    assert {"python3-rich >= 13", "python3-typer >= 0.7"} <= set(query(rpms().client, "--requires"))


def test_scriptlets() -> None:
    package = rpms().agent
    assert "install-system-units qemu-guest-agent.service" in script(package, "POSTIN")
    assert "udevadm control --reload" in script(package, "POSTIN")
    assert "remove-system-units qemu-guest-agent.service" in script(package, "PREUN")
    assert "mark-restart-system-units qemu-guest-agent.service" in script(package, "POSTUN")
    assert "systemd-sysusers qgactl.conf" in script(rpms().client, "POSTIN")
    triggers = output("rpm", "--query", "--package", "--triggers", package)
    assert "triggerpostun" in triggers
    assert "systemctl --no-block start qemu-guest-agent.service" in triggers


@pytest.mark.parametrize("name", ["POSTIN", "PREUN", "POSTUN"])
def test_scriptlets_are_good_shell(name: str) -> None:
    text = script(rpms().agent, name)
    subprocess.run(["/bin/sh", "-n"], input=text, text=True, check=True)


def test_the_unit_has_fedoras_paths_and_variables(agent_root: Root) -> None:
    unit = agent_root.folder / "tree/usr/lib/systemd/system/qemu-guest-agent.service"
    lines = unit.read_text().splitlines()
    assert "EnvironmentFile=-/etc/sysconfig/qemu-ga" in lines
    start = next(line for line in lines if line.startswith("ExecStart="))
    assert start.startswith("ExecStart=/usr/bin/qemu-ga ")
    for word in ("${BLOCK_RPCS}", "$FILTER_RPC_ARGS", "-F${FSFREEZE_HOOK_PATHNAME}"):
        assert word in start


def test_the_defaults_are_fedoras(agent_root: Root) -> None:
    told = agent_root.run("/usr/bin/qemu-ga", "--dump-conf", "-F")
    assert "fsfreeze-hook=/etc/qemu-ga/fsfreeze-hook\n" in told
    assert "/etc/qemu-ga/qemu-ga.conf" in agent_root.run("/usr/bin/qemu-ga", "--help")


def test_the_configuration_is_read_from_fedoras_place(agent_root: Root) -> None:
    config = agent_root.folder / "tree/etc/qemu-ga/qemu-ga.conf"
    text = config.read_text()
    try:
        config.write_text("[general]\nblock-rpcs=guest-ping\n")
        assert "block-rpcs=guest-ping" in agent_root.run("/usr/bin/qemu-ga", "--dump-conf")
    finally:
        config.write_text(text)


def test_the_tree_runs_the_agent(agent_root: Root) -> None:
    with agent_root.agent("/usr/bin/qemu-ga") as agent:
        assert agent.execute("guest-ping") == {}
        commands = {entry["name"] for entry in agent.execute("guest-info")["supported_commands"]}
        assert commands >= {"guest-exec", "guest-file-open", "guest-fsfreeze-freeze"}


def test_the_hook_that_is_shipped_lets_a_freeze_happen(agent_root: Root) -> None:
    agent_root.run("/etc/qemu-ga/fsfreeze-hook", "freeze")
