"""A hostile guest against every command of qgactl and every method of the library.

`agent` is the guest, `honest` has honest replies, `scenarios` the hostile ones. `bounded` runs the
victim and measures memory, time and disk.
"""
