"""A guest that answers anything, against every command of qgactl and every method of the library.

`agent` is the guest, `honest` what it would say if it were one, `scenarios` what it says instead,
`bounded` runs the victim and measures what that costs: memory, time, disk.
"""
