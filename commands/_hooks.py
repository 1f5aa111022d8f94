"""The administrator's scripts around a freeze, such as one that flushes a database.

They are the hook itself and, after it, every executable in the folder `HOOK.d`, by name; each
is called with `freeze`, and after the thaw, in reverse, with `thaw`. A hook that names the
folder in its text runs it itself, as the one that distributions ship does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qga import QgaError
from qga.programs.run import run
from qga.settings import trust

if TYPE_CHECKING:
    from qga.findings import Finding

_LEFT_OVERS = ("~", ".dpkg-old", ".dpkg-new", ".dpkg-dist", ".rpmsave", ".rpmorig", ".rpmnew")


class Hooks:
    """hook: the path of the hook, or None for no hooks. timeout: seconds for each script."""

    def __init__(self, hook: str | None, timeout: float) -> None:
        self._hook = hook
        self._timeout = timeout
        self._ran: list[str] = []  # since the last thaw

    def freeze(self) -> None:
        """Call the scripts with `freeze`. When one fails, undo with `thaw` and raise QgaError."""
        for script in self._scripts():
            self._ran.append(script)
            try:
                self._call(script, "freeze")
            except QgaError:
                self.undo()
                raise

    def thaw(self) -> None:
        """Call with `thaw`, in reverse, the scripts that were called with `freeze`.

        All of them where this agent has called none: another may have. Each is called whatever
        becomes of the others; then the first failure is raised.
        """
        if not self._ran:
            self._ran = self._scripts()
        failure = self.undo()
        if failure is not None:
            raise failure

    def undo(self) -> QgaError | None:
        """Call with `thaw` what was called with `freeze`; the first failure."""
        failure = None
        ran, self._ran = self._ran, []  # two thaws at once call each of them once
        for script in reversed(ran):
            try:
                self._call(script, "thaw")
            except QgaError as error:
                failure = failure or error
        return failure

    def _scripts(self) -> list[str]:
        if self._hook is None:
            return []
        folder = f"{self._hook}.d"
        in_folder = _executables(folder)
        try:
            with open(self._hook, "rb") as file:
                runs_folder = os.path.basename(folder).encode() in file.read()
        except OSError as error:
            if in_folder and isinstance(error, FileNotFoundError):
                return in_folder
            raise QgaError(
                f"can't access fsfreeze hook '{self._hook}': {error.strerror}"
            ) from error
        return [self._hook] if runs_folder else [self._hook, *in_folder]

    def _call(self, script: str, action: str) -> None:
        try:
            trust.require(script)
            ended = run([script, action], self._timeout)
        except trust.Untrusted as error:
            raise QgaError(f"fsfreeze hook has failed: {script} is not run: {error}") from error
        except OSError as error:  # TimeoutError is one
            reason = error.strerror or f"it took over {self._timeout:g} s and was killed"
            raise QgaError(f"fsfreeze hook has failed: {script} {action}: {reason}") from error
        said = f": {ended.output.strip()}" if ended.output.strip() else ""
        if ended.status < 0:
            raise QgaError(
                f"fsfreeze hook has terminated abnormally by signal {-ended.status}: "
                f"{script} {action}{said}"
            )
        if ended.status:
            raise QgaError(
                f"fsfreeze hook has failed with status {ended.status}: {script} {action}{said}"
            )


def diagnose_hooks(hook: str | None) -> Iterator[Finding]:
    """Whether the scripts around a freeze can be run and are root's alone, and which are not."""
    from qga.findings import failed, ok

    if hook is None:
        yield ok("hooks", "none are configured (fsfreeze-hook)")
        return
    in_folder = _executables(f"{hook}.d")
    if os.path.exists(hook):
        yield _diagnose_script(hook)
    elif not in_folder:  # else the folder will do
        advice = f"put a script there, or executables into {hook}.d, or unset fsfreeze-hook"
        yield failed("hooks", f"{hook} is missing: every freeze fails", advice)
    for script in in_folder:
        yield _diagnose_script(script)
    yield from _diagnose_skipped(f"{hook}.d", in_folder)


def _diagnose_script(script: str) -> Finding:
    from qga.findings import failed, ok

    if not os.path.isfile(script):
        text = f"{script} is not a file: every freeze fails"
        return failed("hooks", text, "put a script there, or unset fsfreeze-hook")
    if not os.access(script, os.X_OK):
        text = f"{script} is not executable: every freeze fails"
        return failed("hooks", text, _how_to_make_executable(script))
    try:
        trust.require(script)
    except (OSError, trust.Untrusted) as error:
        advice = "chown root and chmod go-w what is named"
        return failed("hooks", f"{script} is not run, so every freeze fails: {error}", advice)
    fault = _fault_of_first_line(script)
    if fault is not None:
        return failed("hooks", f"{script} {fault}: every freeze fails", "correct its first line")
    return ok("hooks", f"{script} is run around each freeze")


def _how_to_make_executable(script: str) -> str:
    if os.stat(script).st_mode & 0o111:
        return f"move {script} to a filesystem that is not mounted noexec"
    return f"chmod +x {script}"


def _fault_of_first_line(script: str) -> str | None:
    """Why the kernel cannot run a script by its first line; None if it can."""
    with open(script, "rb") as file:
        line = file.readline(256)  # BINPRM_BUF_SIZE of <linux/binfmts.h>
    if not line.startswith(b"#!"):
        return None
    if line.endswith(b"\r\n"):
        return "has lines that end as on Windows (\\r\\n)"
    interpreter = b"".join(line[2:].split()[:1])
    if not os.access(interpreter, os.X_OK):
        return f"names an interpreter that cannot be run ({os.fsdecode(interpreter)})"
    return None


def _diagnose_skipped(folder: str, in_folder: list[str]) -> Iterator[Finding]:
    """What lies among the scripts and is passed over without a word."""
    from qga.findings import ok, warning

    if os.path.exists(folder) and not os.path.isdir(folder):
        yield warning(
            "hooks", f"{folder} is not a directory of scripts", "make it one, or remove it"
        )
    for path in (f"{folder}/{name}" for name in _names(folder)):
        if path in in_folder:
            continue
        if _is_left_over(path):
            yield ok("hooks", f"{path} is not run: by its name it is a left-over")
        elif os.path.isfile(path):
            text = f"{path} is not run around a freeze: it is not executable"
            yield warning("hooks", text, f"{_how_to_make_executable(path)}, or remove it")
        else:
            what = "a directory" if os.path.isdir(path) else "not a regular file"
            if not os.path.exists(path):
                what = "a dangling link"
            text = f"{path} is not run around a freeze: it is {what}"
            yield warning("hooks", text, "put a script there, or remove it")


def _executables(folder: str) -> list[str]:
    """The programs in a folder, by name, without what editors and packages leave behind."""
    paths = [f"{folder}/{name}" for name in _names(folder)]
    return [
        path
        for path in paths
        if not _is_left_over(path) and os.path.isfile(path) and os.access(path, os.X_OK)
    ]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_left_over(path: str) -> bool:
    return os.path.basename(path).startswith(".") or path.endswith(_LEFT_OVERS)
