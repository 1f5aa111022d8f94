"""The standard commands of the QEMU guest agent, one file a group."""
