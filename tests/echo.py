"""A server that says again what it hears."""

from __future__ import annotations

import socket
import threading


class Echo:
    """Greets whoever connects, and then says again what it hears, each in a thread of its own."""

    def __init__(self, greeting: bytes = b"", address: str = "127.0.0.1") -> None:
        self._greeting = greeting
        self._listener = socket.create_server((address, 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            connection.sendall(self._greeting)
            while data := connection.recv(100):
                connection.sendall(data)

    def close(self) -> None:
        """Accept nobody more; idempotent."""
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
