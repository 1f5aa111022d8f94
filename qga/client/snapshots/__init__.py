"""Snapshots of a machine's disks, taken while its guest is frozen."""
