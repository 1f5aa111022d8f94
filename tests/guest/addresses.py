"""Addresses of the guest's loopback, added and removed by rtnetlink(7) alone.

ip(8) takes milliseconds for each in an emulated guest.
"""

ADDRESS_REQUESTS = r"""
import socket, struct, sys

def request(kind, flags, number):
    raw = bytes([10, 1]) + number.to_bytes(2, "big")
    content = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, 1)
    content += struct.pack("=HH4sHH4s", 8, 2, raw, 8, 1, raw)  # IFA_LOCAL, IFA_ADDRESS
    return struct.pack("=IHHII", 16 + len(content), kind, flags, 0, 0) + content

kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
"""
