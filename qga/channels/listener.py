"""A listening socket as a channel: a session for each client, up to `max-clients`.

Further clients wait in the socket's backlog until another one leaves.
"""

from __future__ import annotations

from _socket import socket  # the module `socket` would cost 0.3 MB of memory

from qga.channels.base import RETRY_INTERVAL, Channel
from qga.serving.audit import Limit
from qga.serving.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qga.policy.caller import Caller
    from qga.serving.server import Server
    from qga.settings.config import ChannelConfig

_BACKLOG = 4096


class ListeningChannel(Channel):
    """What the listening methods share. They override how to bind, and whom to accept."""

    _listener: socket | None = None
    _accepting = False

    def __init__(self, agent: Server, config: ChannelConfig, caller: Caller) -> None:
        super().__init__(agent, config, caller)
        self._clients: dict[Session, socket] = {}
        self._limit: Limit | None = None  # of warnings about rejected clients

    @property
    def serves(self) -> bool:
        return self._listener is not None

    @property
    def has_client(self) -> bool:
        return bool(self._clients)

    def do_bind(self) -> socket:
        """Return a bound socket that does not listen yet, or raise ChannelError."""
        raise NotImplementedError

    def do_admit(self, address: object) -> bool:
        """Whether a client at this address is accepted."""
        return True

    def do_name_peer(self, client: socket, address: object) -> str:
        """Who a client is, for the log."""
        raise NotImplementedError

    def adopt(self, listener: socket) -> None:
        """Serve a listening socket that the service manager made and will remove."""
        self._listener = listener

    def do_open(self) -> None:
        if self._listener is None:
            self._listener = self.do_bind()
            self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)

    def do_start(self) -> None:
        self._accept_while_there_is_room()

    def do_close(self) -> None:
        self._stop_accepting()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for session in list(self._clients):
            self._on_end(session, None)

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
            # What accept() of the module `socket` calls; it would make an object of that module.
            fd, address = listener._accept()  # type: ignore[attr-defined]
            client = socket(listener.family, listener.type, listener.proto, fileno=fd)
        except OSError as error:  # the client has left already, or no descriptor is free
            self.agent.log.warning(f"channel '{self.config.path}': accept: {error.strerror}")
            self._stop_accepting()
            self.agent.loop.call_later(RETRY_INTERVAL, self._accept_while_there_is_room)
            return
        if not self.do_admit(address):
            client.close()
            self._report_rejected(address)
            return
        client.setblocking(False)
        caller = self.caller._replace(peer=self.do_name_peer(client, address))
        session = Session(
            self.agent,
            client.fileno(),
            caller,
            self._on_end,
            short_read_empties=True,
            outlives_peer=False,
            position=self.position,
        )
        self._clients[session] = client
        if len(self._clients) >= self.config.max_clients:
            self._stop_accepting()
        session.start()
        self.agent.on_connect(caller)

    def _report_rejected(self, address: object) -> None:
        # Limited: anybody may try to connect, as often as they like.
        if self._limit is None:
            self._limit = Limit(self.agent.loop)
        warn = self.agent.log.warning
        if self._limit.admits(self.config.name, "clients rejected", warn):
            warn(f"channel '{self.config.path}': rejected client {address}")

    def _on_end(self, session: Session, _error: OSError | None) -> None:
        session.close()
        self._clients.pop(session).close()
        self.agent.on_disconnect(session.caller)
        self._accept_while_there_is_room()
