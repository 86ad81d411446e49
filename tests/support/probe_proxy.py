"""Stands between pyOCD and a virtual board's debug probe, and can spoil what passes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

Request = dict[str, Any]
#: Given a request and its answer, gives what the client receives: None cuts it off.
Meddle = Callable[[Request, Request], Request | None]


class ProbeProxy:
    """A remote probe in front of another one; `requests` are those that have passed."""

    def __init__(self, address: str, meddle: Meddle) -> None:
        host, port = address.removeprefix("remote:").split(":")
        self._behind = (host, int(port))
        self._meddle = meddle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"remote:127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[Request] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> ProbeProxy:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError, ValueError):
                self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        with (
            socket.create_connection(self._behind) as probe,
            client.makefile("rb") as questions,
            probe.makefile("rb") as answers,
        ):
            for end in (client, probe):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for question in questions:
                probe.sendall(question)
                request, answer = json.loads(question), json.loads(answers.readline())
                self.requests.append(request)
                answer = self._meddle(request, answer)
                if answer is None:
                    return
                client.sendall(json.dumps(answer).encode() + b"\n")
