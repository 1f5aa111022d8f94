"""The options that every command takes, and the guest that they lead to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any, Callable, TypeVar

import typer

from qga.client.addresses import few
from qga.client.agent import GuestAgent
from qga.client.data_ports import DataPorts
from qga.client.errors import AgentError, ConnectError
from qga.client.hosts.discovery import FoundGuest, find_guests
from qga.client.transports import Transport
from qga.ctl import display
from qga.ctl.address_book import Book, as_address, read_book
from qga.ctl.guest_words import Found, Place, Surroundings, is_socket
from qga.ctl.units import seconds
from qga.ctl.values import NotUsable, pairs

T = TypeVar("T")


class Output(str, Enum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True)
class Settings:
    """The options given before and after the command.

    named: the guest of the command line. others: further ones, where a command takes several.
    environment: the guest of QGA_CONNECT. example: how to name a guest for this command.
    guest_doubt: how to read the words if there is a guest among them.
    """

    named: str = ""
    others: tuple[str, ...] = ()
    environment: str = ""
    timeout: float = 5.0
    output: Output = Output.TABLE
    data_ports: Mapping[str, str] = field(default_factory=dict)
    verbose: bool = False
    example: str = ""
    guest_doubt: str = ""

    @cached_property
    def book(self) -> Book:
        """The configuration files; they are read when a guest is looked for."""
        try:
            return read_book()
        except ValueError as error:
            raise NotUsable(str(error)) from None

    @property
    def guest(self) -> str:
        """The guest as the user named it; "" if there is none."""
        return self.named or self.environment or self.book.default

    @property
    def address(self) -> str:
        return as_address(self.guest) if is_complete(self.guest) else self.book.address(self.guest)

    @property
    def structured(self) -> bool:
        """Whether the output is JSON or YAML."""
        return self.output is not Output.TABLE

    def surroundings(self, named_by_option: bool) -> Surroundings:
        return Surroundings(lambda: named_by_option or bool(self.guest), lambda: self.book)

    def with_options(self, given: Mapping[str, Any]) -> Settings:
        """These settings, overridden by the options of a command line."""
        changed = replace(self, verbose=self.verbose or bool(given.get("verbose")))
        if "timeout" in given:
            changed = replace(changed, timeout=seconds(given["timeout"]))
        if "output" in given:
            changed = replace(changed, output=Output(given["output"]))
        # Not an alias for --output json in the parser: click cannot have one option set another.
        if given.get("as_json"):
            if changed.output is Output.YAML:
                raise typer.BadParameter("--json and --output yaml exclude each other")
            changed = replace(changed, output=Output.JSON)
        if "data_ports" in given:
            sockets = pairs(given["data_ports"], "NAME=SOCKET", "--data-port")
            check_sockets(sockets)
            changed = replace(changed, data_ports=sockets)
        display.configure(quiet=bool(given.get("quiet")), colourless=bool(given.get("no_color")))
        if "connect" in given and not given["connect"]:
            raise typer.BadParameter("the name of the guest is empty")
        return changed.with_guest(Found(given.get("connect", "")))

    def with_example(self, command: str, place: Place) -> Settings:
        """These settings with an example for the error if no guest is given."""
        return replace(self, example=f"qgactl {command} {place.example}".rstrip())

    def with_guest(self, found: Found) -> Settings:
        """These settings with the guest in the words. Raises if there are two guests."""
        if self.named and found.guest and self.named != found.guest:
            reasons = [f"two guests are given, {self.named} and {found.guest}; name one"]
            raise typer.BadParameter("; ".join(filter(None, [*reasons, found.doubt])))
        if found.guest:
            doubt = found.doubt if found.others else ""
            return replace(self, named=found.guest, others=found.others, guest_doubt=doubt)
        # Without a guest in the words the doubt is whether one of them was meant to be it.
        return replace(self, guest_doubt=found.doubt)

    def agent(self) -> Agent:
        """The agent of the guest that was named."""
        self.require_guest()
        try:
            agent = self.agent_at(self.address, self.guest)
        except ValueError as error:
            reasons = filter(None, [str(error), self.book.origin(self.guest)])
            raise typer.BadParameter("; ".join(reasons)) from None
        agent.explanation = self.explanation
        agent.guest_doubt = self.guest_doubt
        return agent

    def agent_at(self, address: str | FoundGuest, name: str) -> Agent:
        """The agent of a guest that errors call `name`. Raises ValueError for a wrong address."""
        agent = Agent(address, self.timeout)
        agent.typed = name
        if self.verbose:
            agent.report = display.say
            agent.report(f"guest {name} at {agent.address}")
        return agent

    def explanation(self) -> str:
        """For an error about a missing guest: the origin of its address, or similar names."""
        word = self.guest
        if is_complete(word):
            is_default = not (self.named or self.environment)
            return f"the default of {self.book.files['']}" if is_default else ""
        if word in self.book.guests:
            return self.book.origin(word)
        guests = find_guests()
        if any(guest.is_called(word) for guest in guests):
            return ""
        names = sorted(self.book.guests)
        reasons = [
            f"for the socket in this directory write ./{word}" if is_socket(word) else "",
            f"in the configuration: {few(names)}" if names else "",
            self.book.suggestion(word, {guest.name for guest in guests}),
        ]
        return "; ".join(filter(None, reasons))

    def require_guest(self) -> None:
        if not self.guest:
            reasons = [f"no guest given: {self.example}", self.guest_doubt]
            where = "`qgactl list` shows the guests, QGA_CONNECT sets a default"
            raise typer.BadParameter("; ".join(filter(None, [*reasons, where])))

    def ports(self) -> DataPorts:
        """The data ports of the guest, with the sockets that were given."""
        check_sockets(self.data_ports)
        return DataPorts(self.address, self.data_ports)

    def print(self, value: Any) -> None:
        """Print a value as JSON or YAML."""
        print(display.yaml(value) if self.output is Output.YAML else display.compact_json(value))


class Agent(GuestAgent):
    """Its errors name the guest as it was typed. With --verbose it reports each request.

    explanation: for the error if there is no such guest. guest_doubt: if there is no such program.
    """

    report: Callable[[str], None] | None = None
    typed = guest_doubt = ""
    explanation: Callable[[], str] = str

    def __enter__(self) -> Agent:
        try:
            super().__enter__()
        except AgentError as error:
            if isinstance(error, ConnectError):
                error.reason = "; ".join(filter(None, [error.reason, self.explanation()]))
            error.address = self.typed
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        error = raised[1]
        if isinstance(error, AgentError) and error.address == self.address:
            error.address = self.typed
        super().__exit__(*raised)

    def _perform(
        self, command: str, timeout: float | None, step: Callable[[Transport, float], T]
    ) -> T:
        start = time.monotonic()
        try:
            return super()._perform(command, timeout, step)
        finally:
            if self.report:
                self.report(f"{command}: {(time.monotonic() - start) * 1000:.1f} ms")


def is_complete(word: str) -> bool:
    """Whether it is an address that no configuration could change."""
    return ":" in word or "/" in word


def check_sockets(data_ports: Mapping[str, str]) -> None:
    for name, path in data_ports.items():
        if path and not is_socket(path):
            shown = display.printable(f"{name}={path}")
            raise NotUsable(f"--data-port {shown}: there is no socket at this path")
