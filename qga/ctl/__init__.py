"""qgactl: what a person types on the host. Needs typer and rich; `qga.client` needs neither."""
