"""Passes on the frames of a link later: `between PORT NEAR FAR MS` and `whole LINK`.

Frames go between the links PORT and NEAR, each after MS milliseconds. FAR is the other end of NEAR. What is sent into a link
from which frames are read has to be as it is on a wire, so the kernel must not leave segments and checksums to the card:
`whole` sees to it for what a host sends, and `between` for FAR.
"""

import array
import collections
import fcntl
import select
import socket
import struct
import sys
import time

SIOCETHTOOL = 0x8946
# Checksums, TCP segments, and segments of any kind.
OFFLOADS = (0x17, 0x1F, 0x24)
ALL_PROTOCOLS = 3
OUTGOING = 4


def whole(link):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for offload in OFFLOADS:
            off = array.array("B", struct.pack("II", offload, 0))
            fcntl.ioctl(asked, SIOCETHTOOL, struct.pack("16sP", link.encode(), off.buffer_info()[0]))


def between(port, near, far, ms):
    whole(far)
    ends = []
    for link in (port, near):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        end.bind((link, 0))
        ends.append(end)
    print("passes on", flush=True)
    waiting = collections.deque()
    while True:
        left = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        readable, _, _ = select.select(ends, [], [], left)
        for end in readable:
            frame, (_, _, kind, _, _) = end.recvfrom(1 << 16)
            if kind != OUTGOING:
                other = ends[1 - ends.index(end)]
                waiting.append((time.monotonic() + ms / 1000, other, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, to, frame = waiting.popleft()
            try:
                to.send(frame)
            except OSError as error:
                # A network may lose a frame.
                print("lost a frame of", len(frame), "bytes:", error, flush=True)


if sys.argv[1] == "whole":
    whole(sys.argv[2])
else:
    between(*sys.argv[2:5], int(sys.argv[5]))
