"""The standard commands of the QEMU guest agent, one file per group."""
