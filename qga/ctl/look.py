"""What the guest is and has: commands that only ask."""

import typer

from qga.ctl import display
from qga.ctl.app import JSON, Settings, app, faults


@app.command()
def ping(
    context: typer.Context,
    count: int = typer.Option(1, metavar="N", min=1, help="How often."),
    as_json: bool = JSON,
) -> None:
    """Ask the agent whether it is there, and measure the round trip.

    \b
    Examples:
      qgactl ping
      qgactl ping --count 100
    """
    settings: Settings = context.obj
    times = []
    with faults(), settings.agent() as agent:
        for number in range(1, count + 1):
            times.append(agent.ping() * 1000)
            if not settings.json:
                line = f"{settings.address}: answer {number} after {times[-1]:.3f} ms"
                print(display.printable(line))
    if settings.json:
        print(display.compact_json({"round-trip-ms": [round(time, 3) for time in times]}))
    elif count > 1:
        mean = sum(times) / count
        print(f"min {min(times):.3f} ms, mean {mean:.3f} ms, max {max(times):.3f} ms")


@app.command()
def info(context: typer.Context, as_json: bool = JSON) -> None:
    """Show the agent's version and its commands.

    \b
    Examples:
      qgactl info
      qgactl --json info
    """
    settings: Settings = context.obj
    with faults(), settings.agent() as agent:
        if settings.json:
            print(display.compact_json(agent.call("guest-info")))
        else:
            display.show_info(settings.address, agent.info())
