"""What all modules of this collection do: find the guest, work with its agent, report errors.

What must stay true: a module that is asked to end thaws first what it has frozen.
"""

from __future__ import annotations

import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from qga.client import AgentError, GuestAgent

    MISSING = ""
except ImportError:
    MISSING = traceback.format_exc()

if TYPE_CHECKING:
    from collections.abc import Callable

ARGUMENTS = {
    "guest": {"type": "str", "required": True},
    "timeout": {"type": "float", "default": 10},
}


def run_module(
    arguments: dict[str, Any], work: Callable[[AnsibleModule, GuestAgent], dict[str, Any]]
) -> None:
    """Exit with what `work` returns, or fail with the text of its error."""
    module = AnsibleModule({**ARGUMENTS, **arguments}, supports_check_mode=True)
    if MISSING:
        module.fail_json(missing_required_lib("qga"), exception=MISSING)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        with GuestAgent(module.params["guest"], module.params["timeout"]) as agent:
            result = work(module, agent)
    except (AgentError, OSError, ValueError) as error:
        module.fail_json(str(error))
    module.exit_json(**result)
