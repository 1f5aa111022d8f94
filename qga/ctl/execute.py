"""Programs and shells in the guest."""

import sys
from contextlib import ExitStack
from typing import Optional

import typer

from qga.client.parallel import AT_ONCE
from qga.ctl import limit_options
from qga.ctl.app import command
from qga.ctl.command import RUN
from qga.ctl.fanout import guests_of, run_in_guests
from qga.ctl.guest_words import before_dashes, never, unless_program_of_guest
from qga.ctl.running import Wanted, run
from qga.ctl.settings import Settings
from qga.ctl.units import seconds
from qga.ctl.values import NotUsable, duration, not_empty, pairs

# The login shell of the user that the agent runs as, as login(1) starts it.
LOGIN = """
cd 2>/dev/null
shell=$(getent passwd "$(id -u)" | cut -d : -f 7)
for each in "$shell" /bin/bash /bin/sh; do
    if [ -x "$each" ]; then
        export SHELL="$each"
        exec "$each" -l
    fi
done
"""


USER = typer.Option(
    None,
    "-u",
    "--user",
    metavar="USER",
    callback=not_empty,
    help="Run it as this user of the guest (default: that of the agent, root).",
    show_default=False,
)


@command(
    RUN,
    before_dashes("GUEST -- PROGRAM [ARG]...", never, "[GUEST]... --", several=True),
    name="exec",
    context_settings={"allow_interspersed_args": False},
)
def execute(
    context: typer.Context,
    argv: list[str] = typer.Argument(
        ..., metavar="PROGRAM [ARG]...", help="Program and arguments.", show_default=False
    ),
    user: Optional[str] = USER,
    group: Optional[str] = typer.Option(
        None,
        "--group",
        metavar="GROUP",
        callback=not_empty,
        help="Run it with this group of the guest (default: the user's primary group). With a "
        "group, --user may be a number without an account.",
        show_default=False,
    ),
    directory: Optional[str] = typer.Option(
        None,
        "-w",
        "--workdir",
        metavar="DIR",
        callback=not_empty,
        help="Run it in this directory of the guest.",
        show_default=False,
    ),
    env: Optional[list[str]] = typer.Option(
        None,
        metavar="NAME=VALUE",
        help="Set a variable in the program's environment. May be repeated.",
    ),
    clean_env: bool = typer.Option(
        False, "--clean-env", help="Start with an empty environment, apart from --env."
    ),
    input_file: str = typer.Option(
        "-", "--input", metavar="FILE", help="Read standard input from a file of this host."
    ),
    interactive: bool = typer.Option(
        False, "-i", "--interactive", help="Pass on standard input even if it is a terminal."
    ),
    timeout: str = typer.Option(
        "inf",
        metavar="DURATION",
        callback=duration,
        help="Terminate the program when it runs longer. (Before exec, --timeout limits each reply "
        "of the agent.)",
    ),
    tty: bool = typer.Option(False, "-t", "--tty", help="Run the program in a terminal."),
    everywhere: bool = typer.Option(False, "--all", help="Run it in all guests of this host."),
    at_once: int = typer.Option(
        AT_ONCE, metavar="N", min=1, help="With several guests: how many at the same time."
    ),
    memory: Optional[str] = limit_options.MEMORY,
    pids: Optional[int] = limit_options.PIDS,
    cpus: Optional[float] = limit_options.CPUS,
    cpu_seconds: Optional[int] = limit_options.CPU_SECONDS,
    open_files: Optional[int] = limit_options.OPEN_FILES,
    file_size: Optional[str] = limit_options.FILE_SIZE,
    output_size: Optional[str] = limit_options.OUTPUT_SIZE,
) -> None:
    """Run a program in the guest.

    Output appears as it is written, and qgactl exits with the program's status, or with 124 after
    a --timeout. The program reads qgactl's standard input unless that is a terminal; --input
    /dev/null gives it none. ^C is sent to the program as SIGINT; a second one kills it. No shell
    is involved. The word before -- is the guest; -- may be left out if the guest is not named
    here, and the program has no -- among its arguments.

    With several guests, or --all, each line of output begins with the name of its guest, and the
    exit status is the greatest. --json prints an object for each guest when its program has
    ended. The programs get no input without --input or -i; with either, each reads all of it.

    With a timeout or a limit, everything that the program has started ends with it. If a limit
    ends it, that is reported. In a guest without cgroup v2, limits apply to each process, and
    --cpus is refused.

    With an agent that lacks qga-exec (QEMU's own), there are no limits, input is sent before the
    program starts, and output appears after it has exited, at most 16 MiB of each stream. --json
    keeps 32 MiB.

    \b
    Examples:
      qgactl exec web -- ls -l /
      qgactl exec web --timeout 10m -- apt-get --yes upgrade
      qgactl exec web -- tar -C /etc -c . >etc.tar
      qgactl exec web --input setup.sh -- /bin/sh
      qgactl exec web -u alice -w /srv -- git pull
      qgactl exec web -u nobody --memory 512M --pids 100 --cpus 0.5 -- ./job
      qgactl exec web --env LANG=C -- sh -c 'echo $LANG'
      qgactl exec web -it -- top
      qgactl exec web db -- systemctl is-system-running
      qgactl exec --all -- uptime
    """
    settings: Settings = context.obj
    variables = pairs(env or [], "NAME=VALUE", "--env")
    limits = limit_options.limits_of(
        memory, pids, cpus, cpu_seconds, open_files, file_size, output_size
    )
    several = everywhere or bool(settings.others)
    if several:
        refuse_for_several(settings, tty)
    with ExitStack() as stack:
        source = None
        if not several or interactive or input_file != "-":
            source = opened_input(stack, input_file, tty or interactive)
        limit = seconds(timeout)
        wanted = Wanted(
            argv, variables, clean_env, source, tty, limit, user, directory, limits, group
        )
        if several:
            status = run_in_guests(settings, guests_of(settings, everywhere), wanted, at_once)
        else:
            status = run(settings, wanted)
    raise typer.Exit(status)


def refuse_for_several(settings: Settings, tty: bool) -> None:
    """Options that make sense for one guest only."""
    if tty:
        raise typer.BadParameter("-t works with one guest")
    if settings.data_ports:
        raise typer.BadParameter("--data-port is about one guest")


@command(
    RUN,
    before_dashes("GUEST", unless_program_of_guest),
    context_settings={"allow_interspersed_args": False},
)
def shell(
    context: typer.Context,
    argv: Optional[list[str]] = typer.Argument(
        None,
        metavar="[-- PROGRAM [ARG]...]",
        help="A program to run instead of the login shell.",
    ),
    user: Optional[str] = USER,
) -> None:
    """Open a login shell in the guest.

    This needs an agent with qga-exec. As with ssh, ~. at the beginning of a line disconnects and
    terminates whatever runs there; ~~ sends one ~. The exit status is that of the shell. If
    standard input is not a terminal, the shell gets none either, and reads commands from it.

    \b
    Examples:
      qgactl shell web
      qgactl shell web -u alice
      qgactl shell web -- python3
    """
    settings: Settings = context.obj
    if settings.structured:
        raise typer.BadParameter("shell has no output as JSON or YAML")
    program = argv or ["/bin/sh", "-c", LOGIN]
    stdin = sys.stdin
    wanted = Wanted(program, {}, input=stdin.fileno(), tty=stdin.isatty(), user=user)
    raise typer.Exit(run(settings, wanted))


def opened_input(stack: ExitStack, name: str, wanted: bool) -> Optional[int]:
    """The descriptor to read the program's input from; None for no input."""
    if name == "-":
        return sys.stdin.fileno() if wanted or not sys.stdin.isatty() else None
    try:
        return stack.enter_context(open(name, "rb", buffering=0)).fileno()
    except OSError as error:
        raise NotUsable(f"cannot read {name}: {error.strerror}") from None
