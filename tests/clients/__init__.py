"""Other people's clients, unchanged, against the agent in a real guest.

libvirt runs the guest as it would anywhere, with the channel that its documentation tells people to
write down; virsh and Ansible talk to the agent through it.  One guest serves all the tests.
"""
