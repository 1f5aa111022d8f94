"""GuestAgent: the agent of one guest, as an object on the host.

It must stay true that a caller gets the reply to its own request or an error, never the reply
to another one: neither after a timeout, nor when threads share the object, nor after an
interrupt. The lock here and the transport's synchronizing see to it. Nothing is ever sent
twice; a lost connection is reported, and the next call makes a new one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Literal, TypeVar, Union

from qga.client import results
from qga.client.errors import AgentError, AgentTimeout, ConnectError, ProtocolError
from qga.client.results import AgentInfo, ExecResult, OSInfo, Timezone
from qga.client.transports import Transport, transport_opener
from qga.client.wire import DEFAULT_MAX_REPLY, decode_reply, encode_request

T = TypeVar("T")
Capture = Union[bool, Literal["none", "stdout", "stderr", "separated", "merged"]]

# Bytes of a file in one request: larger ones cost memory and gain nothing.
CHUNK = 1024 * 1024

# Seconds between two looks at a running program: the first, the longest, and the growth.
FIRST_DELAY, LONGEST_DELAY, DELAY_GROWTH = 0.001, 0.5, 1.5


class GuestAgent:
    """The agent behind `address`, such as `unix:/var/lib/libvirt/qemu/channel/…`.

    `timeout` is the number of seconds that a call waits for its answer unless it says
    otherwise (math.inf: for ever), counted from the moment when no other thread's call is in
    the way. `max_reply` is the largest reply in bytes. ValueError for an address of no known
    form.

    Entering it as a context connects; without that the first call does. All methods raise
    the errors of qga.client.errors.
    """

    def __init__(
        self, address: str, timeout: float = 5.0, *, max_reply: int = DEFAULT_MAX_REPLY
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._open_transport = transport_opener(address, max_reply)
        self._transport: Transport | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> GuestAgent:
        self.sync()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, after the call of another thread that is using it."""
        with self._lock:
            if self._transport is not None:
                self._transport.close()
                self._transport = None

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        timeout: float | None = None,
        **keywords: Any,
    ) -> Any:
        """Have `command` run in the guest and return its `return` value, decoded from JSON.

        Arguments are given by their names on the wire in a mapping, or as keywords with `_`
        for `-`, or both: `call("guest-file-read", handle=1000, count=4096)`.
        """
        named = {name.replace("_", "-"): value for name, value in keywords.items()}
        request = encode_request(command, {**(arguments or {}), **named})

        def ask(link: Transport, deadline: float) -> Any:
            try:
                return decode_reply(link.exchange(request, deadline), command)
            except ProtocolError as error:
                link.mistrust()
                raise ProtocolError(f"{command}: {error}") from None

        return self._perform(command, timeout, ask)

    def sync(self, *, timeout: float | None = None) -> None:
        """Connect if need be, and make sure that the agent answers and is in step with us."""
        self._perform(
            "guest-sync-delimited", timeout, lambda link, deadline: link.synchronize(deadline)
        )

    def ping(self, *, timeout: float | None = None) -> float:
        """The time of one round trip in seconds."""
        start = time.perf_counter()
        self.call("guest-ping", timeout=timeout)
        return time.perf_counter() - start

    def info(self) -> AgentInfo:
        """The agent's version and its commands."""
        return self._typed("guest-info", results.agent_info)

    def osinfo(self) -> OSInfo:
        """Kernel and distribution of the guest."""
        return self._typed("guest-get-osinfo", results.os_info)

    def hostname(self) -> str:
        """The guest's name for itself."""
        return self._typed(
            "guest-get-host-name", lambda reply: results.member(reply, "host-name", str)
        )

    def timezone(self) -> Timezone:
        """The guest's distance from UTC."""
        return self._typed("guest-get-timezone", results.timezone)

    def time(self) -> int:
        """The guest's clock, in nanoseconds since 1970-01-01 UTC."""
        return self._typed("guest-get-time", lambda reply: results.checked(reply, int, "the reply"))

    def exec(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        capture: Capture = True,
        timeout: float = math.inf,
    ) -> ExecResult:
        """Run a program in the guest and wait for its end, at most `timeout` seconds.

        The first of `argv` is a path, or a name looked up in the guest's PATH. `input` is what
        the program reads from its standard input; without it that is /dev/null. `env`
        *replaces* the program's environment. `capture` is True for both streams, False for
        none, or one of the words of newer agents. After AgentTimeout the program runs on.
        """
        if isinstance(argv, str) or not argv:
            raise ValueError(f"argv must be a list of at least one string, not {argv!r}")
        arguments: dict[str, Any] = {
            "path": argv[0],
            "arg": list(argv[1:]),
            "capture-output": capture,
        }
        if input is not None:
            arguments["input-data"] = results.encode_base64(input)
        if env is not None:
            arguments["env"] = [f"{name}={value}" for name, value in env.items()]
        pid = self._typed(
            "guest-exec", lambda reply: results.member(reply, "pid", int), **arguments
        )
        return self._wait(pid, timeout)

    def read_file(self, path: str, *, chunk: int = CHUNK) -> bytes:
        """The content of a file of the guest, fetched `chunk` bytes at a time."""
        pieces: list[bytes] = []
        with self._opened(path, "r") as handle:
            while True:
                piece = self._typed(
                    "guest-file-read", results.file_chunk, handle=handle, count=chunk
                )
                pieces.append(piece.data)
                if piece.eof or not piece.data:
                    return b"".join(pieces)

    def write_file(self, path: str, data: bytes, *, chunk: int = CHUNK) -> None:
        """Create or overwrite a file of the guest, sending `chunk` bytes at a time."""
        data = memoryview(data).tobytes()  # what is no bytes must not cost the file its content
        with self._opened(path, "w") as handle:
            position = 0
            while position < len(data):
                position += self._write(handle, data[position : position + chunk])
            self.call("guest-file-flush", handle=handle)

    def _write(self, handle: int, data: bytes) -> int:
        count = self._typed(
            "guest-file-write",
            lambda reply: results.member(reply, "count", int),
            handle=handle,
            buf_b64=results.encode_base64(data),
        )
        if not 0 < count <= len(data):
            raise ProtocolError(f"guest-file-write: took {count} of {len(data)} bytes")
        return count

    @contextmanager
    def _opened(self, path: str, mode: str) -> Iterator[int]:
        handle = self._typed(
            "guest-file-open",
            lambda reply: results.checked(reply, int, "the reply"),
            path=path,
            mode=mode,
        )
        try:
            yield handle
        except BaseException:
            with suppress(AgentError):
                self.call("guest-file-close", handle=handle)
            raise
        self.call("guest-file-close", handle=handle)

    def _wait(self, pid: int, timeout: float) -> ExecResult:
        deadline = time.monotonic() + timeout
        delay = FIRST_DELAY
        while True:
            result = self._typed("guest-exec-status", results.exec_result, pid=pid)
            if result is not None:
                return result
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                reason = f"process {pid} still runs in the guest"
                raise AgentTimeout(self.address, "guest-exec", timeout, reason)
            time.sleep(min(delay, remaining))
            delay = min(delay * DELAY_GROWTH, LONGEST_DELAY)

    def _typed(self, command: str, parse: Callable[[object], T], **arguments: Any) -> T:
        reply = self.call(command, **arguments)
        try:
            return parse(reply)
        except ProtocolError as error:
            raise ProtocolError(f"{command}: {error}") from None

    def _perform(
        self, command: str, timeout: float | None, step: Callable[[Transport, float], T]
    ) -> T:
        seconds = self.timeout if timeout is None else timeout
        with self._lock:
            deadline = time.monotonic() + seconds
            try:
                if self._transport is None:
                    self._transport = self._open_transport()
                return step(self._transport, deadline)
            except TimeoutError as error:
                raise AgentTimeout(self.address, command, seconds, str(error)) from None
            except OSError as error:
                self.close()
                raise ConnectError(self.address, f"{command}: {error}") from None
