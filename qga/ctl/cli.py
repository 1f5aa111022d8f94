"""The app with all of its commands, in the order in which its help lists them."""

from qga.ctl.app import app as app
from qga.ctl.app import run as run

# isort: off
from qga.ctl import listing as listing
from qga.ctl import agent as agent
from qga.ctl import system as system
from qga.ctl import network as network
from qga.ctl import storage as storage
from qga.ctl import growing as growing
from qga.ctl import processors as processors
from qga.ctl import top as top
from qga.ctl import check as check
from qga.ctl import checkmk as checkmk
from qga.ctl import zabbix as zabbix
from qga.ctl import readiness as readiness
from qga.ctl import execute as execute
from qga.ctl import copy as copy
from qga.ctl import forward as forward
from qga.ctl import freeze as freeze
from qga.ctl import snapshot as snapshot
from qga.ctl import restore as restore
from qga.ctl import power as power
from qga.ctl import accounts as accounts
from qga.ctl import call as call
from qga.ctl import port as port
from qga.ctl import channel as channel
from qga.ctl import doctor as doctor
from qga.ctl import exporter as exporter
from qga.ctl import mcp as mcp
from qga.ctl import helping as helping
