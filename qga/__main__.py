"""`python -m qga` is qemu-ga."""

from __future__ import annotations

import sys

from qga.cli import main

sys.exit(main())
