"""The life of the process: state directory, PID file, signals, and the background.

What must stay true: exit status 0 means a normal shutdown or, with -d, that the agent is running in
the background. An agent that cannot start prints the reason on standard error and exits with status
1. While filesystems are frozen no signal stops the agent, because nothing else would thaw them, and
no PID file is created.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys

from qga.agent import Agent
from qga.errors import ChannelError, ConfigError
from qga.service.log import Log
from qga.service.service_manager import ServiceManager, passes_sockets
from qga.service.sinks import ERROR, WARNING
from qga.service.state import State, StateError
from qga.settings.trust import open_own
from qga.stdlib import signal
from qga.version import INTERFACE_VERSION, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qga.settings.config import Config

_READY = b"\0"
_STDERR = 2


class PidFileError(Exception):
    """The PID file cannot be written, or belongs to another agent."""


def open_standard_descriptors() -> None:
    """Open descriptors 0, 1 and 2 if they are closed, so that they are not used for other files."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > _STDERR:
            os.close(fd)
            return


def run(config: Config, log: Log) -> int:
    """Serve until a signal arrives, in the background with `daemonize`; returns the exit status."""
    if config.daemonize:
        return _run_daemon(config, log)
    return serve(config, log, ready=lambda: None)


def serve(config: Config, log: Log, ready: Callable[[], None]) -> int:
    """Serve in this process; `ready` is called when all channels are open."""
    has_started = False

    def on_ready() -> None:
        nonlocal has_started
        has_started = True
        ready()

    try:
        _serve(config, log, on_ready)
    except ChannelError as error:
        complain(log, *str(error).splitlines())
        complain(log, "failed to create guest agent channel")
        complain(log, "failed to initialize guest agent channel", "error initializing guest agent")
    except (ConfigError, StateError, PidFileError) as error:
        complain(log, str(error), "error initializing guest agent")
    except (OSError, ImportError) as error:
        if has_started:  # the loop has failed, or a file of its own cannot be removed
            complain(log, f"ended with an error: {_reason_of(error)}")
        else:  # no descriptor is left, also for a module
            complain(log, f"cannot start: {_reason_of(error)}", "error initializing guest agent")
    else:
        return 0
    return 1


def _reason_of(error: OSError | ImportError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"'{error.filename}': {error.strerror}" if error.filename else error.strerror
    return str(error)


def complain(log: Log, *texts: str) -> None:
    """Report why the agent does not serve, in the log and on standard error."""
    for text in texts:
        log.announce(ERROR, text)


def _serve(config: Config, log: Log, ready: Callable[[], None]) -> None:
    agent = Agent(config, log)
    _warn_if_frozen(agent.state, log)
    signals = Signals(agent, log)
    try:
        _serve_with_pidfile(agent, signals, log, ready)
    finally:
        signals.close()  # last: a second SIGTERM must not interrupt the shutdown


def _serve_with_pidfile(
    agent: Agent, signals: Signals, log: Log, ready: Callable[[], None]
) -> None:
    pidfile = PidFile(agent.config.pidfile) if agent.config.pidfile else None
    try:
        if pidfile:
            acquire_when_thawed(pidfile, agent.state, log)
        _run(agent, signals, log, ready)
    finally:
        try:
            if pidfile:
                pidfile.release()
        finally:
            agent.close()


def _run(agent: Agent, signals: Signals, log: Log, ready: Callable[[], None]) -> None:
    agent.open()
    if signals.stopped:
        raise ChannelError("stopped by a signal before the channel could be opened")
    ready()
    manager = ServiceManager()
    manager.ready()
    manager.keep_alive(agent.loop)
    agent.on_status = manager.status
    log.info(f"Guest agent version {INTERFACE_VERSION} (qga {__version__}) started", "started")
    try:
        agent.run()
    except OSError as error:
        agent.log_fault("the loop", error)
        raise
    agent.on_status = None
    manager.stopping()
    manager.close()


def _warn_if_frozen(state: State, log: Log) -> None:
    if not state.frozen:
        return
    seconds = state.seconds_to_thaw()
    limit = "" if seconds is None else f", or the agent thaws them in {seconds:.0f} s"
    log.announce(
        WARNING,
        "previous instance appears to have exited with frozen filesystems: deferring the log and "
        "the pid file, and refusing commands that are not safe while frozen, until "
        f"guest-fsfreeze-thaw is called{limit} ({state.marker})",
    )


class PidFile:
    """A file with the ID of this process, locked while the process runs."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> None:
        """Create or take over the file. Raises PidFileError if another process has locked it."""
        fd = self._open_and_lock()
        while not self._is_at_path(fd):  # its owner has removed it between our open and our lock
            os.close(fd)
            fd = self._open_and_lock()
        try:
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        except OSError as error:
            if self._is_at_path(fd):
                os.unlink(self._path)
            os.close(fd)
            raise PidFileError(f"Could not write '{self._path}': {error.strerror}") from None
        self._fd = fd

    def release(self) -> None:
        """Remove the file if it was acquired."""
        if self._fd < 0:
            return
        if self._is_at_path(self._fd):
            os.unlink(self._path)
        os.close(self._fd)
        self._fd = -1

    def _open_and_lock(self) -> int:
        try:
            fd = open_own(self._path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
        except OSError as error:
            raise PidFileError(f"Could not create '{self._path}': {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise PidFileError(f"Could not create '{self._path}': not a regular file")
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise PidFileError(
                f"Cannot lock pid file: {error.strerror} "
                f"('{self._path}' belongs to process {owner or 'unknown'})"
            ) from None
        return fd

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._path))
        except FileNotFoundError:
            return False


def acquire_when_thawed(pidfile: PidFile, state: State, log: Log) -> None:
    """Acquire at once, or raise PidFileError; if frozen, acquire after the thaw and log errors."""
    if not state.frozen:
        pidfile.acquire()
        return

    def acquire_late() -> None:
        try:
            pidfile.acquire()
        except PidFileError as error:
            log.error(str(error))

    state.when_thawed(acquire_late)


class Signals:
    """Turns signals into events of the loop: SIGTERM and SIGINT stop it, SIGHUP reopens the log,
    and SIGALRM is the alarm of its timers.

    The signal handlers do nothing. `stopped` is whether a signal has asked the agent to stop.
    """

    HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, agent: Agent, log: Log) -> None:
        self.stopped = False
        self._agent = agent
        self._log = log
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in self.HANDLED:
            # Python writes the number to the pipe only if there is a handler.
            signal.signal(number, lambda *_: None)
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # children cannot be waited for if it is ignored
        signal.signal(signal.SIGALRM, lambda *_: None)
        # Without SA_RESTART it would end system calls of other threads.
        signal.siginterrupt(signal.SIGALRM, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*self.HANDLED, signal.SIGALRM))
        agent.loop.watch(self._read_fd, self._take_signals)
        agent.loop.use_alarm(lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds))

    def close(self) -> None:
        """Ignore the signals from now on, so that they do not interrupt the shutdown."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in self.HANDLED:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _take_signals(self, _events: int) -> None:
        self._agent.loop.alarm_rang()  # also if another process has read what follows
        try:
            numbers = os.read(self._read_fd, 4096)
        except BlockingIOError:  # another process has read it through /proc/PID/fd
            return
        for number in numbers:
            if number == signal.SIGHUP:
                self._log.reopen()
            elif number in (signal.SIGTERM, signal.SIGINT) and not self._agent.frozen:
                self._log.info(f"received signal num {number}, quitting")
                self.stopped = True
                self._agent.stop()


def _run_daemon(config: Config, log: Log) -> int:
    """Serve in a child; this process returns 0 when the child is ready, or 1 if it has failed."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None if the descriptor was closed at the start
            stream.flush()
    starter = os.getpid()
    read_fd, write_fd = os.pipe()
    if os.fork():
        os.close(write_fd)
        return 0 if os.read(read_fd, 1) == _READY else 1
    os.close(read_fd)
    _hand_over_sockets(starter)
    os.chdir("/")

    def ready() -> None:
        _detach()
        try:
            os.write(write_fd, _READY)
        except BrokenPipeError:  # the first process was killed
            pass
        os.close(write_fd)

    return serve(config, log, ready)


def _hand_over_sockets(starter: int) -> None:
    """Make the child the recipient of sockets from systemd (sd_listen_fds(3))."""
    if passes_sockets(os.environ, starter):
        os.environ["LISTEN_PID"] = str(os.getpid())


def _detach() -> None:
    """Detach from the terminal. Until the agent is ready, it needs ^C and shows messages there."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stdio_fd in (0, 1, 2):
        os.dup2(null, stdio_fd)
    os.close(null)
