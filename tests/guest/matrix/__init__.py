"""The agent in the guests of the matrix: releases, inits and architectures, as Debian has them.

Each guest has that release's own agent from the package qemu-guest-agent, which serves the host's
port. The tests install ours over it. A copy of the release's agent, started by the guest's init on
a port of its own, is the tests' hand in the guest and what replies are compared with.
"""
