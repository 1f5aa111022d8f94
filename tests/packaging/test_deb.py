"""The Debian packages: files, fields, lintian, and programs that run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from qga.version import __version__
from tests.packaging.built import CHECKOUT, debs, loaded_by_the_page, output
from tests.packaging.roots import Root

pytestmark = pytest.mark.timeout(300)

AGENT_FILES = {
    "/etc/init.d/qemu-guest-agent",
    "/etc/qemu/fsfreeze-hook.d/",
    "/usr/lib/systemd/system/qemu-guest-agent.service",
    "/usr/lib/systemd/system/qemu-guest-agent-vsock.service",
    "/usr/lib/systemd/system/qemu-guest-agent-vsock.socket",
    "/usr/lib/udev/rules.d/99-qemu-guest-agent.rules",
    "/usr/sbin/qemu-ga",
    "/usr/share/apparmor/extra-profiles/usr.sbin.qemu-ga",
    "/usr/share/bash-completion/completions/qemu-ga",
    "/usr/share/fish/vendor_completions.d/qemu-ga.fish",
    "/usr/share/man/man5/qemu-ga.conf.5.gz",
    "/usr/share/man/man8/qemu-ga.8.gz",
    "/usr/share/qga/80-online-hotplugged.rules",
    "/usr/share/qga/hardened.conf",
    "/usr/share/qga/hooks/mariadb",
    "/usr/share/qga/qemu-ga.conf",
    "/usr/share/qga/qga/cli.py",
    "/usr/share/qga/qga/commands/freeze.py",
    "/usr/share/zsh/vendor-completions/_qemu-ga",
}
CLIENT_FILES = {
    "/usr/lib/systemd/system/qgactl-exporter.service",
    "/usr/bin/qgactl",
    "/usr/lib/python3/dist-packages/qga/ctl/cli.py",
    f"/usr/lib/python3/dist-packages/qga-{__version__}.dist-info/INSTALLER",
    f"/usr/lib/python3/dist-packages/qga-{__version__}.dist-info/entry_points.txt",
    "/usr/lib/sysusers.d/qgactl.conf",
    "/usr/share/ansible/collections/ansible_collections/qga/guest/plugins/connection/qga.py",
    "/usr/share/bash-completion/completions/qgactl",
    "/usr/share/fish/vendor_completions.d/qgactl.fish",
    "/usr/share/man/man1/qgactl.1.gz",
    "/usr/share/polkit-1/rules.d/60-qgactl-exporter.rules",
    "/usr/share/qgactl/checkmk/qga",
    "/usr/share/qgactl/grafana/qga.json",
    "/usr/share/qgactl/zabbix/qga.conf",
    "/usr/share/zsh/vendor-completions/_qgactl",
}
PAGE_FILES = {
    "/usr/share/cockpit/qga/index.html",
    "/usr/share/cockpit/qga/manifest.json",
    "/usr/share/cockpit/qga/vendor/patternfly.css",
    "/usr/share/cockpit/qga/vendor/xterm.js",
}


def files(package: Path) -> dict[str, str]:
    """The package's files and directories with their modes."""
    lines = output("dpkg-deb", "--contents", package).splitlines()
    return {line.split(maxsplit=5)[5].lstrip("."): line.split(maxsplit=1)[0] for line in lines}


def field(package: Path, name: str) -> set[str]:
    return set(output("dpkg-deb", "--field", package, name).strip().split(", "))


@pytest.fixture(scope="module", name="agent_root")
def agent_root_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    folder = tmp_path_factory.mktemp("deb")
    output("dpkg-deb", "--extract", debs().agent, folder / "unpacked")
    yield Root(folder, folder / "unpacked")


def test_lintian_is_silent() -> None:
    assert output("lintian", "--fail-on=error,warning", *debs()) == ""


def test_files() -> None:
    assert files(debs().agent).keys() >= AGENT_FILES
    assert files(debs().client).keys() >= CLIENT_FILES
    assert files(debs().page).keys() >= PAGE_FILES


def test_every_module_is_in_a_package() -> None:
    """Each package has all rooms but those of the other side."""
    rooms = {room.name for room in (CHECKOUT / "qga").iterdir() if any(room.glob("*.py"))}
    for package, place, others in (
        (debs().agent, "/usr/share/qga/qga", {"client", "ctl", "integrations", "mcp"}),
        (debs().client, "/usr/lib/python3/dist-packages/qga", {"channels", "doctor"}),
    ):
        assert others < rooms
        expected = {
            f"{place}/{module.relative_to(CHECKOUT / 'qga')}"
            for module in (CHECKOUT / "qga").rglob("*.py")
            if module.relative_to(CHECKOUT / "qga").parts[0] not in others
        }
        assert files(package).keys() >= expected


def test_every_file_that_the_cockpit_page_loads_is_in_its_package() -> None:
    assert files(debs().page).keys() >= loaded_by_the_page()


def test_every_page_is_in_both_packages() -> None:
    pages = {page.name for page in (CHECKOUT / "docs").glob("*.md")}
    for package in debs()[:2]:
        name = package.name.partition("_")[0]
        assert files(package).keys() >= {f"/usr/share/doc/{name}/docs/{page}" for page in pages}


def test_the_packages_share_no_file() -> None:
    paths = [path for package in debs() for path in files(package) if not path.endswith("/")]
    assert len(paths) == len(set(paths))


def test_nobody_but_root_may_write_the_files() -> None:
    for package in debs():
        assert not [path for path, mode in files(package).items() if re.match(".{5}w|.{8}w", mode)]


def test_takes_the_place_of_the_original() -> None:
    for name in ("Provides", "Conflicts", "Replaces"):
        assert field(debs().agent, name) == {"qemu-guest-agent"}


def test_dependencies() -> None:
    needed = {"python3-psutil", "python3-serial", "python3-systemd", "python3:any"}
    assert field(debs().agent, "Depends") >= needed
    assert {"cockpit-bridge (>= 287)"} < field(debs().page, "Depends")
    assert field(debs().client, "Depends") >= {"python3-rich (>= 13)", "python3-typer (>= 0.7)"}


def test_nothing_lies_below_the_link_of_merged_usr() -> None:
    """dpkg would not recognise the same path below /usr in another package."""
    for package in debs():
        assert not [path for path in files(package) if re.match("/(bin|lib|sbin)/", path)]


def test_the_exporters_user_is_there_before_its_unit_starts() -> None:
    told = output("dpkg-deb", "--info", debs().client, "postinst")
    assert 0 < told.index("systemd-sysusers") < told.index("qgactl-exporter.service")


def test_the_interpreter_is_the_distributions_own_and_isolated(agent_root: Root) -> None:
    launcher = agent_root.folder / "tree/usr/sbin/qemu-ga"
    assert launcher.read_text().startswith("#!/usr/bin/python3 -ISXutf8\n")


def test_a_users_packages_change_nothing(agent_root: Root) -> None:
    (agent_root.shared / "psutil.py").write_text("raise SystemExit('not this one')\n")
    (agent_root.shared / "qga.py").write_text("raise SystemExit('not this one')\n")
    told = agent_root.run("env", "PYTHONPATH=/shared", "/usr/sbin/qemu-ga", "--version")
    assert told.startswith("QEMU Guest Agent ")


def test_hooks_of_other_packages_do_not_run(agent_root: Root) -> None:
    hook = agent_root.folder / "tree/usr/lib/python3/dist-packages/hook.pth"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text("import os; os.write(1, b'hooked ')\n")
    try:
        assert agent_root.run("/usr/bin/python3", "-I", "-c", "").startswith("hooked")
        assert agent_root.run("/usr/sbin/qemu-ga", "--version").startswith("QEMU Guest Agent ")
    finally:
        hook.unlink()


def test_the_agent_runs_from_the_package_alone(agent_root: Root) -> None:
    with agent_root.agent("/usr/sbin/qemu-ga") as agent:
        commands = {entry["name"] for entry in agent.execute("guest-info")["supported_commands"]}
        assert commands >= {"guest-exec", "guest-file-open", "guest-fsfreeze-freeze"}


@pytest.fixture(scope="module", name="client_root")
def client_root_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    folder = tmp_path_factory.mktemp("client")
    output("dpkg-deb", "--extract", debs().client, folder / "unpacked")
    yield Root(folder, folder / "unpacked")


@contextmanager
def reached(agent_root: Root, client_root: Root) -> Iterator[str]:
    """The address at which what runs in `client_root` reaches an agent."""
    with agent_root.agent("/usr/sbin/qemu-ga"):
        (client_root.shared / "qga").hardlink_to(agent_root.shared / "qga")
        yield "unix:/shared/qga"
        (client_root.shared / "qga").unlink()


def test_qgactl_runs_with_debians_typer(client_root: Root, agent_root: Root) -> None:
    assert client_root.run("/usr/bin/qgactl", "--version").startswith("qgactl ")
    script = "import qga.client; print(qga.client.__file__)"
    place = client_root.run("/usr/bin/python3", "-Ic", script)
    assert place == "/usr/lib/python3/dist-packages/qga/client/__init__.py\n"
    with reached(agent_root, client_root) as address:
        told = client_root.run("/usr/bin/qgactl", "--json", "--connect", address, "info")
    assert json.loads(told)["supported_commands"]


OF_A_USER = """
def test_arithmetic(host):
    assert host.check_output("echo $((6 * 7))") == "42"
"""


def test_debians_testinfra_reaches_guests(client_root: Root, agent_root: Root) -> None:
    (client_root.shared / "test_it.py").write_text(OF_A_USER)
    pytest_ = ("/usr/bin/python3", "-m", "pytest", "-pno:cacheprovider")
    with reached(agent_root, client_root) as address:
        hosts = f"--hosts=qga://{quote(address, safe=':')}"
        assert "1 passed" in client_root.run(*pytest_, hosts, "/shared/test_it.py")


ENTRY_POINTS = """
import importlib.metadata
print(importlib.metadata.version("qga"))
for entry in importlib.metadata.distribution("qga").entry_points:
    print(entry.group, entry.name, entry.value)
"""


def test_pyinfra_finds_its_connector(client_root: Root) -> None:
    """Debian has no pyinfra: in an environment made with --system-site-packages it looks here."""
    version, *entries = client_root.run("/usr/bin/python3", "-Ic", ENTRY_POINTS).splitlines()
    assert version == __version__
    assert "pyinfra.connectors qga qga.integrations.pyinfra:QgaConnector" in entries


@pytest.mark.parametrize("page", ["man8/qemu-ga.8.gz", "man5/qemu-ga.conf.5.gz"])
def test_man_has_nothing_to_complain_of(agent_root: Root, page: str) -> None:
    check_page(agent_root.folder / "tree/usr/share/man" / page)


def test_man_has_nothing_to_complain_of_in_qgactl(tmp_path: Path) -> None:
    output("dpkg-deb", "--extract", debs().client, tmp_path)
    check_page(tmp_path / "usr/share/man/man1/qgactl.1.gz")


def check_page(path: Path) -> None:
    script = 'MANWIDTH=80 man --warnings --encoding=utf8 --local-file "$1" 2>&1 >/dev/null'
    assert output("/bin/sh", "-c", script, "sh", path) == ""
