"""What is written about qga, made from what qga is: manual pages, completions, tables.

    python -m qga_docs FOLDER      everything that a package installs besides the code, into FOLDER
    python -m qga_docs commands    docs/commands.md, to standard output
    python -m qga_docs top         docs/top.svg, likewise

Nothing here knows an option, a key or a command by itself: `interface` reads them off the parsers
and the registry, the other modules only lay them out.
"""
