"""Somebody who comes over TCP for one thing, and goes as they please."""

import socket

from tests.load.phone import Message


class Visitor:
    """One connection of a live network; ``done(status)`` when it is over.

    ``asks``: OPTIONS to the server; ``writes``: a MESSAGE to a phone; ``resets``: the same, and is gone before the answer;
    ``stalls``: half a message, then nothing."""

    def __init__(self, phone, network, way, done):
        self.network, self.done = network, done
        self.socket = socket.create_connection(network.server, 5)
        self.socket.setblocking(False)
        host, port = self.socket.getsockname()
        uri = f"sip:{phone.domain}" if way == "asks" else f"sip:talk1@{phone.domain}"
        data, _ = phone.request("OPTIONS" if way == "asks" else "MESSAGE", uri, to=uri, call_id=f"tcp{phone.new_branch()}")
        own = f"UDP {phone.end.host}:{phone.end.port}".encode()
        data = data.replace(own, f"TCP {host}:{port}".encode())
        self.buffer = b""
        if way == "stalls":
            data = data[: len(data) // 2]
        self.socket.sendall(data)
        if way == "resets":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        network.watch(self)
        if way in ("resets", "stalls"):
            network.later(0.001 if way == "resets" else phone.timing.talk, self.leave)

    def ready(self):
        """Take what has come."""
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.buffer += data
        if self.buffer.endswith(b"\r\n\r\n"):
            self.leave(Message(self.buffer).status)
        elif not data:
            self.leave()

    def leave(self, status=0):
        """Go."""
        if self.socket.fileno() >= 0:
            self.network.leave(self)
            self.socket.close()
            self.done(status)
