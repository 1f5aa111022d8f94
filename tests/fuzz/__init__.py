"""Coverage-guided fuzzing of what reads untrusted bytes.

`make fuzz`, or `python -m tests.fuzz --help`. Each target takes bytes and raises when what must
be true of them is not. The corpus, in corpus/TARGET, is small and kept: what a long run has found
beyond it goes there by `python -m tests.fuzz --keep`. Replaying it needs no fuzzer.
"""
