"""qgactl whole: the app with all of its commands, in the order that its help lists them."""

from qga.ctl import call, execute, look, port
from qga.ctl.app import app, run

__all__ = ["app", "call", "execute", "look", "port", "run"]
