"""The agent in the guests of the matrix: releases, inits and architectures, as Debian has them.

Each guest has the agent of that release (package qemu-guest-agent), which serves the host's port.
The tests install ours over it. A copy of the release's agent, started by the guest's init on
another port, lets the tests control the guest, and its replies are compared with ours.
"""
