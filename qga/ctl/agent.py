"""Whether the agent answers, and what it offers."""

import typer

from qga.client.commands.info import VERSION
from qga.ctl import display
from qga.ctl.app import command, faults
from qga.ctl.command import ADVANCED, LOOK
from qga.ctl.settings import Settings


@command(LOOK)
def ping(
    context: typer.Context,
    count: int = typer.Option(1, metavar="N", min=1, help="Number of pings to send."),
) -> None:
    """Check that the agent responds, and measure the round trip.

    \b
    Examples:
      qgactl ping web
      qgactl ping web --count 100
    """
    settings: Settings = context.obj
    times = []
    with faults(), settings.agent() as agent:
        for number in range(1, count + 1):
            times.append(agent.ping() * 1000)
            if not settings.structured:
                line = f"{settings.guest}: answer {number} after {times[-1]:.3f} ms"
                print(display.printable(line))
    if settings.structured:
        settings.print({"round-trip-ms": [round(time, 3) for time in times]})
    elif count > 1:
        mean = sum(times) / count
        print(f"min {min(times):.3f} ms, mean {mean:.3f} ms, max {max(times):.3f} ms")


@command(ADVANCED)
def info(context: typer.Context) -> None:
    """Show the agent's version and its commands.

    The version is that of the QEMU release with the same interface; qga reports its own as well.

    \b
    Examples:
      qgactl info web
      qgactl info web --json
    """
    settings: Settings = context.obj
    with faults(), settings.agent() as agent:
        info = agent.info()
        release = agent.release() if info.offers(VERSION) else None
        if settings.structured:
            ours = {"qga": release._asdict()} if release else {}
            settings.print({**agent.call("guest-info"), **ours})
        else:
            display.show_info(settings.guest, info, release)
