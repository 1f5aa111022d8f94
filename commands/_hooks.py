"""The administrator's scripts around a freeze, such as one that flushes a database.

They are the hook itself and, after it, every executable in the folder `HOOK.d`, by name; each
is called with `freeze`, and after the thaw, in reverse, with `thaw`. A hook that names the
folder in its text runs it itself, as the one that distributions ship does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qga import QgaError, trust
from qga.run import run

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
    """Whether the scripts around a freeze are there, can be run, and are root's alone."""
    from qga.findings import failed, ok

    if hook is None:
        yield ok("hooks", "none are configured (fsfreeze-hook)")
        return
    scripts = list(dict.fromkeys([hook, *_executables(f"{hook}.d")]))
    if len(scripts) > 1 and not os.path.exists(hook):
        scripts.remove(hook)  # the folder will do
    for script in scripts:
        if not os.path.exists(script):
            advice = f"put a script there, or executables into {hook}.d, or unset fsfreeze-hook"
            yield failed("hooks", f"{script} is missing: every freeze fails", advice)
        elif not os.access(script, os.X_OK):
            text = f"{script} is not executable: every freeze fails"
            yield failed("hooks", text, f"chmod +x {script}")
        else:
            yield _diagnose_owner(script)


def _diagnose_owner(script: str) -> Finding:
    from qga.findings import failed, ok

    try:
        trust.require(script)
    except (OSError, trust.Untrusted) as error:
        advice = "chown root and chmod go-w what is named"
        return failed("hooks", f"{script} is not run, so every freeze fails: {error}", advice)
    return ok("hooks", f"{script} is run around each freeze")


def _executables(folder: str) -> list[str]:
    """The programs in a folder, by name, without what editors and packages leave behind."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    paths = [
        f"{folder}/{name}"
        for name in names
        if not name.startswith(".") and not name.endswith(_LEFT_OVERS)
    ]
    return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]
