"""A webhook on loopback that never comes to the end of an answer."""

from __future__ import annotations

import json
import socket
import ssl
import threading

EVERY_S = 0.005


class DrippingService:
    """Answers each post with `at_once`, and then with `drop` every few milliseconds, until it is told `heal`.

    After that it answers each with 204, and notes the frame as `taken`. With TLS it lets each handshake wait so long.
    """

    def __init__(
        self, at_once: bytes, drop: bytes, context: ssl.SSLContext | None = None, handshake_s: float = 0
    ) -> None:
        self._context = context
        self._handshake_s = handshake_s
        self._at_once, self._drop = at_once, drop
        self._healed, self._closed = threading.Event(), threading.Event()
        self.keys: list[str] = []  # of all posts
        self.taken: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}/verdicts"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def heal(self) -> None:
        self._healed.set()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closed.is_set():
                connection.close()
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._closed.wait(self._handshake_s)
            connection = plain if self._context is None else self._context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return  # whoever connected has left
        with connection, connection.makefile("rb") as reader:
            try:
                while length := _content_length(reader):
                    body = reader.read(length)
                    if len(body) < length:
                        return
                    record = json.loads(body)
                    self.keys.append(record["key"])
                    if self._healed.is_set():
                        self.taken.append(record["frame_id"])
                        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                        continue
                    connection.sendall(self._at_once)
                    while not self._closed.wait(EVERY_S):
                        connection.sendall(self._drop)
                    return
            except OSError:
                return  # whoever posted has left

    def close(self) -> None:
        self._closed.set()
        with socket.create_connection(self._listener.getsockname()):
            self._threads[0].join()
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join()


def _content_length(reader: object) -> int:
    """Of the request that begins here; 0 at the end of the connection."""
    length = 0
    for line in iter(reader.readline, b"\r\n"):  # type: ignore[attr-defined]
        if not line:
            return 0
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return length
