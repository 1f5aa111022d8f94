"""A listening socket as a channel: a session for each client, up to a number.

Beyond that number clients wait in the socket's backlog until another one leaves. It takes no more
than `_socket`: the module `socket` costs 0.3 MB of memory.
"""

from __future__ import annotations

from _socket import socket
from typing import TYPE_CHECKING

from qga.channels.base import RETRY_INTERVAL, Channel
from qga.errors import ChannelError
from qga.serving.audit import Limit
from qga.serving.session import Session

if TYPE_CHECKING:
    from qga.policy.caller import Caller
    from qga.serving.server import Server
    from qga.settings.config import ChannelConfig

_BACKLOG = 16


class ListeningChannel(Channel):
    """What the listening methods share. They say how to make their socket and whom to let in."""

    _listener: socket | None = None
    _accepting = False

    def __init__(self, agent: Server, config: ChannelConfig, caller: Caller) -> None:
        super().__init__(agent, config, caller)
        self._clients: dict[Session, socket] = {}
        self._limit: Limit | None = None  # of what is logged of those who are not let in

    @property
    def serves(self) -> bool:
        return self._listener is not None

    @property
    def has_client(self) -> bool:
        return bool(self._clients)

    def bind(self) -> socket:
        """A bound socket that does not listen yet, or ChannelError."""
        raise NotImplementedError

    def admits(self, address: object) -> bool:
        """Whether a client at this address is let in."""
        return True

    def peer(self, client: socket, address: object) -> str:
        """Who a client is."""
        raise NotImplementedError

    def adopt(self, listener: socket) -> None:
        """Serve a listening socket that the service manager made, which stays its own."""
        self._listener = listener

    def open(self) -> None:
        if self._listener is None:
            self._listener = self.bind()
            self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)

    def start(self) -> None:
        if self._listener is None:
            self.agent.loop.call_later(RETRY_INTERVAL, self._retry)
        self._accept_while_there_is_room()

    def close(self) -> None:
        self._stop_accepting()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for session in list(self._clients):
            self._on_end(session, None)

    def _retry(self) -> None:
        try:
            self.open()
        except ChannelError:
            pass
        else:
            self.agent.report_status()
        self.start()

    def _accept_while_there_is_room(self) -> None:
        listener = self._listener
        if listener and not self._accepting and len(self._clients) < self.config.max_clients:
            self._accepting = True
            self.agent.loop.watch(listener.fileno(), lambda _events: self._accept(listener))

    def _stop_accepting(self) -> None:
        if self._accepting and self._listener is not None:
            self._accepting = False
            self.agent.loop.unwatch(self._listener.fileno())

    def _accept(self, listener: socket) -> None:
        try:
            fd, address = listener._accept()  # type: ignore[attr-defined]
            client = socket(listener.family, listener.type, listener.proto, fileno=fd)
        except OSError as error:  # it has left already, or we are out of descriptors
            self.agent.log.warning(f"channel '{self.config.path}': accept: {error.strerror}")
            self._stop_accepting()
            self.agent.loop.call_later(RETRY_INTERVAL, self._accept_while_there_is_room)
            return
        if not self.admits(address):
            client.close()
            self._tell_of_stranger(address)
            return
        client.setblocking(False)
        caller = self.caller._replace(peer=self.peer(client, address))
        session = Session(
            self.agent,
            client.fileno(),
            caller,
            self._on_end,
            short_read_empties=True,
            outlives_peer=False,
        )
        self._clients[session] = client
        if len(self._clients) >= self.config.max_clients:
            self._stop_accepting()
        session.start()
        self.agent.connected(caller)

    def _tell_of_stranger(self, address: object) -> None:
        """Anybody may knock, as often as they like."""
        if self._limit is None:
            self._limit = Limit(self.agent.log, self.agent.loop)
        if self._limit.admits(self.config.name, "clients that are not let in"):
            self.agent.log.warning(f"channel '{self.config.path}': {address} is not let in")

    def _on_end(self, session: Session, _error: OSError | None) -> None:
        session.close()
        self._clients.pop(session).close()
        self.agent.disconnected(session.caller)
        self._accept_while_there_is_room()
