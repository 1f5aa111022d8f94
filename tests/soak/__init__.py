"""Good and bad clients at one agent, for as long as you like.

`make soak`, or `python -m tests.soak --help`. It goes in rounds: clients of all kinds at once,
then none. A good client must never see a wrong or a missing answer, whatever the others do; and
after each round nothing of it may be left in the agent: no connection, no child, no command that
still runs, and in the end no more memory than after the first one.
"""
