"""The administrator's scripts around a freeze, such as one that flushes a database.

These are the hook itself and then every executable in the directory `HOOK.d`, by name. Each is
called with `freeze` and, after the thaw and in reverse order, with `thaw`. A hook that contains the
name of the directory runs the scripts itself, as the hook that distributions ship does.

A script that holds something until the thaw, such as a lock on a database, learns from its
environment when to let go if no thaw comes: QGA_AGENT_PID is the process ID of the agent, and
QGA_FREEZE_TIMEOUT the number of seconds after which it thaws by itself (0: never).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from errno import EINVAL
from typing import TYPE_CHECKING

from qga import QgaError
from qga.programs.run import run
from qga.settings import trust

if TYPE_CHECKING:
    from qga.findings import Finding

# SHA-256 of /etc/qemu/fsfreeze-hook in qemu-guest-agent of Debian 12, 13 and sid (11.1). With each
# of them a script that fails does not fail the freeze.
_LENIENT = {
    "429f6c2697d388a5f6c5a13c010834ce8d4befce48e50b378fa53e32779faa4f",
    "0b61379fa4d0ca35805488e75c7af75bb63d41769f69abdfaa59ad6f737f766d",
    "dc14c0744a3bf9bf27c35238461efaea235997e33dd195b480c0c10630490fd0",
}

_LEFTOVERS = ("~", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".rpmsave", ".rpmorig", ".rpmnew")


class Hooks:
    """hook: path of the hook, or None to run none. timeout: seconds for each script.

    freeze_timeout: seconds after which the agent thaws by itself; 0 if never.
    """

    def __init__(self, hook: str | None, timeout: float, freeze_timeout: float = 0) -> None:
        self._hook = hook
        self._timeout = timeout
        self._freeze_timeout = freeze_timeout
        self._ran: list[str] = []  # since the last thaw

    @property
    def ran(self) -> list[str]:
        """The scripts that were called with `freeze` since the last thaw."""
        return self._ran.copy()

    def freeze(self) -> None:
        """Call the scripts with `freeze`.

        If one fails, those called so far are called with `thaw`. Raises QgaError.
        """
        for script in self._scripts():
            self._ran.append(script)
            try:
                self._call(script, "freeze")
            except QgaError:
                self.undo()
                raise

    def thaw(self) -> None:
        """Call the scripts that were called with `freeze` with `thaw`, in reverse order.

        If this agent has called none, another may have, so all are called. The first failure is
        raised after the last call.
        """
        if not self._ran:
            self._ran = self._scripts()
        failure = self.undo()
        if failure is not None:
            raise failure

    def undo(self) -> QgaError | None:
        """Call with `thaw` what was called with `freeze`. Returns the first failure."""
        failure = None
        ran, self._ran = self._ran, []  # so that two thaws at once call each only once
        for script in reversed(ran):
            try:
                self._call(script, "thaw")
            except QgaError as error:
                failure = failure or error
        return failure

    def _scripts(self) -> list[str]:
        if self._hook is None:
            return []
        directory = f"{self._hook}.d"
        in_directory = _executables(directory)
        try:
            runs_directory = _contains(self._hook, os.path.basename(directory))
        except trust.Untrusted as error:
            raise _not_run(self._hook, error) from error
        except OSError as error:
            if in_directory and isinstance(error, FileNotFoundError):
                return in_directory
            raise QgaError(
                f"can't access fsfreeze hook '{self._hook}': {error.strerror}"
            ) from error
        return [self._hook] if runs_directory else [self._hook, *in_directory]

    def _variables(self) -> dict[str, str]:
        return {
            "QGA_AGENT_PID": str(os.getpid()),
            "QGA_FREEZE_TIMEOUT": f"{self._freeze_timeout:g}",
        }

    def _call(self, script: str, action: str) -> None:
        try:
            trust.require_program(script)
            ended = run([script, action], self._timeout, variables=self._variables())
        except trust.Untrusted as error:
            raise _not_run(script, error) from error
        except OSError as error:  # TimeoutError is one
            reason = error.strerror or f"it took over {self._timeout:g} s and was killed"
            raise QgaError(f"fsfreeze hook has failed: {script} {action}: {reason}") from error
        output = f": {ended.output.strip()}" if ended.output.strip() else ""
        if ended.status < 0:
            raise QgaError(
                f"fsfreeze hook has terminated abnormally by signal {-ended.status}: "
                f"{script} {action}{output}"
            )
        if ended.status:
            raise QgaError(
                f"fsfreeze hook has failed with status {ended.status}: {script} {action}{output}"
            )


def _contains(hook: str, name: str) -> bool:
    """Whether a hook contains a name. Raises Untrusted or OSError."""
    trust.require(hook)  # first: others could have put a FIFO there, or a link to an endless file
    if not stat.S_ISREG(os.stat(hook).st_mode):
        raise OSError(EINVAL, "not a regular file")
    with open(hook, "rb") as file:
        return os.fsencode(name) in file.read()


def _not_run(script: str, why: trust.Untrusted) -> QgaError:
    return QgaError(f"fsfreeze hook has failed: {script} was not run: {why}")


def diagnose_hooks(hook: str | None) -> Iterator[Finding]:
    """Whether the scripts around a freeze can be run, and whether only root can change them."""
    from qga.findings import failed, ok

    if hook is None:
        yield ok("hooks", "none configured (fsfreeze-hook)")
        return
    in_directory = _executables(f"{hook}.d")
    if os.path.exists(hook):
        yield _diagnose_script(hook)
        yield from _diagnose_lenient(hook)
    elif not in_directory:
        advice = f"create the script, put executables into {hook}.d, or unset fsfreeze-hook"
        yield failed("hooks", f"{hook} is missing: every freeze fails", advice)
    for script in in_directory:
        yield _diagnose_script(script)
    yield from _diagnose_skipped(f"{hook}.d", in_directory)


def _diagnose_script(script: str) -> Finding:
    from qga.findings import failed, ok

    if not os.path.isfile(script):
        text = f"{script} is not a file: every freeze fails"
        return failed("hooks", text, "create the script, or unset fsfreeze-hook")
    if not os.access(script, os.X_OK):
        text = f"{script} is not executable: every freeze fails"
        return failed("hooks", text, _how_to_make_executable(script))
    fault = _fault_of_first_line(script)
    if fault is not None:
        return failed("hooks", f"{script} {fault}: every freeze fails", "correct its first line")
    try:
        trust.require_program(script)
    except (OSError, trust.Untrusted) as error:
        advice = "change its owner to root and remove write access for others"
        return failed("hooks", f"{script} is refused, so every freeze fails: {error}", advice)
    return ok("hooks", f"{script} is run around each freeze")


def _diagnose_lenient(hook: str) -> Iterator[Finding]:
    """Whether this is the script of a package that ignores failures."""
    from hashlib import sha256

    from qga.findings import warning

    if not os.path.isfile(hook) or not os.access(hook, os.R_OK):
        return
    with open(hook, "rb") as file:
        if sha256(file.read()).hexdigest() in _LENIENT:
            yield warning(
                "hooks",
                f"{hook} is that of Debian's package qemu-guest-agent, which ignores failures: a "
                f"snapshot is taken even if a script in {hook}.d fails",
                f"remove {hook}: the agent runs the scripts in {hook}.d by itself",
            )


def _how_to_make_executable(script: str) -> str:
    if os.stat(script).st_mode & 0o111:
        return f"move {script} to a filesystem that is not mounted noexec"
    return f"chmod +x {script}"


def _fault_of_first_line(script: str) -> str | None:
    """Why the kernel cannot run a script, judging by its first line; None if it can."""
    line = trust.first_line(script)
    interpreter = trust.interpreter_in(line)
    if interpreter is None:
        return None
    if line.endswith(b"\r"):
        return "has Windows line endings (\\r\\n)"
    if not os.access(interpreter, os.X_OK):
        return f"has an interpreter that cannot be run ({interpreter})"
    return None


def _diagnose_skipped(directory: str, in_directory: list[str]) -> Iterator[Finding]:
    """Files among the scripts that are skipped without a message."""
    from qga.findings import ok, warning

    if os.path.exists(directory) and not os.path.isdir(directory):
        yield warning(
            "hooks", f"{directory} is not a directory of scripts", "make it one, or remove it"
        )
    for path in (f"{directory}/{name}" for name in _names(directory)):
        if path in in_directory:
            continue
        if _is_leftover(path):
            yield ok(
                "hooks", f"{path} is not run: its name is that of a backup or package leftover"
            )
        elif os.path.isfile(path):
            text = f"{path} is not run around a freeze: it is not executable"
            yield warning("hooks", text, f"{_how_to_make_executable(path)}, or remove it")
        else:
            what = "a directory" if os.path.isdir(path) else "not a regular file"
            if not os.path.exists(path):
                what = "a dangling link"
            text = f"{path} is not run around a freeze: it is {what}"
            yield warning("hooks", text, "replace it by a script, or remove it")


def _executables(directory: str) -> list[str]:
    """The programs in a directory, by name, without leftovers of editors and packages."""
    paths = [f"{directory}/{name}" for name in _names(directory)]
    return [
        path
        for path in paths
        if not _is_leftover(path) and os.path.isfile(path) and os.access(path, os.X_OK)
    ]


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _is_leftover(path: str) -> bool:
    return os.path.basename(path).startswith(".") or path.endswith(_LEFTOVERS)
