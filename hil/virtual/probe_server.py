"""A virtual board's debug probe: pyOCD's remote probe protocol on a loopback TCP port.

`pyocd load -u remote:127.0.0.1:PORT -t TARGET firmware.elf` reaches the board as it would reach one
behind `pyocd server`. One JSON object a line each way:

    {"id": 7, "request": "read_dp", "arguments": [0]}
    {"id": 7, "status": 0, "result": 732963959}      or {"id": 7, "status": 12, "error": "why"}

Source: pyOCD 0.46, docs/remote_probe_protocol.md. Whoever connects may send anything: a line that
is no request is answered with an error, and a connection that sends no lines is closed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from hil.virtual.debug_port import DebugPort, NoAnswer, TransferFault

_PROTOCOL_VERSION = 1
# Status codes of the protocol
_GENERAL, _PROBE, _TRANSFER, _FAULT = 1, 3, 10, 12

MAX_LINE_BYTES = 8 << 20
MAX_BLOCK_WORDS = 1 << 20
_SEND_DEADLINE_S = 30.0  # a client that does not read its answers for so long is cut off
_REFUSED_S = 2.0  # to read why it is refused
_CAPABILITIES = ["BANKED_DP_REGISTERS", "MANAGED_AP_SELECTION", "MANAGED_DPBANKSEL"]
_PROTOCOLS = ("DEFAULT", "SWD")
_LARGEST_VALUE = (1 << 64) - 1

Json = Any


class RequestError(Exception):
    """A request that is answered with this error."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        super().__init__(text)


class ProbeServer:
    """Serves one debug port, one client at a time, until `close`.

    Args:
        port: what the probe is wired to.
        name: of the board, for clients that ask for the product.
    """

    def __init__(self, port: DebugPort, name: str) -> None:
        self._port, self._name = port, name
        self.vanishes: Callable[[], bool] = lambda: False  # asked before each request
        self.on_client: Callable[[], None] = lambda: None
        self._client: socket.socket | None = None
        self._client_lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        """Listens on a free port of the loopback interface."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(
            target=self._accept, args=(self._listener,), name="probe", daemon=True
        ).start()

    @property
    def address(self) -> str | None:
        """What pyOCD takes as unique id: "remote:127.0.0.1:PORT"; None while it is closed."""
        listener = self._listener
        return None if listener is None else f"remote:127.0.0.1:{listener.getsockname()[1]}"

    def close(self) -> None:
        """As if the probe were pulled out: the port is closed, a client is cut off."""
        listener, self._listener = self._listener, None
        if listener is not None:
            _cut(listener)
        with self._client_lock:
            if self._client is not None:
                _cut(self._client)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            with self._client_lock:
                is_free = self._client is None and self._listener is listener
                if is_free:
                    self._client = client
            serve = self._serve if is_free else _refuse
            threading.Thread(target=serve, args=(client,), name="probe client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:  # it is gone, or was cut off
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.on_client()
                session = ProbeSession(self._port, self._name)

                def answer(line: bytes) -> bytes:
                    if self.vanishes():
                        self.close()
                        self.open()
                        raise ConnectionResetError
                    return session.answer(line)

                _answer_lines(client, answer)
            finally:
                with self._client_lock:  # before the client sees the end: it may come again
                    self._client = None


def _answer_lines(client: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    received = bytearray()
    while True:
        client.settimeout(None)
        data = client.recv(1 << 16)
        if not data:
            return
        searched = len(received)
        received += data
        while (end := received.find(b"\n", searched)) >= 0:
            line = bytes(received[:end])
            del received[: end + 1]
            searched = 0
            client.settimeout(_SEND_DEADLINE_S)
            client.sendall(answer(line))
        if len(received) > MAX_LINE_BYTES:
            return


def _refuse(client: socket.socket) -> None:
    """Says why, then waits for the client to hang up, so that it can read it."""
    error = _error(0, _PROBE, "another client uses this probe; close it first")
    try:
        with client:
            client.settimeout(_REFUSED_S)
            client.sendall(error)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
    except OSError:
        pass


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # never connected, or gone already
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _error(number: Json, status: int, text: str) -> bytes:
    return json.dumps({"id": number, "status": status, "error": text}).encode() + b"\n"


class ProbeSession:
    """What one client has asked for so far. Its requests are the protocol's."""

    def __init__(self, port: DebugPort, name: str) -> None:
        self._port = port
        self._protocol: str | None = None
        self._properties: dict[str, Callable[[], Json]] = {
            "vendor_name": lambda: "virtual",
            "product_name": lambda: name,
            "supported_wire_protocols": lambda: list(_PROTOCOLS),
            "wire_protocol": lambda: self._protocol,
            "capabilities": lambda: _CAPABILITIES,
        }
        nothing = self._nothing
        self._requests: dict[str, tuple[Callable[..., Json], int]] = {  # with its arguments' count
            "hello": (self._hello, 1),
            "readprop": (self._read_property, 1),
            "open": (nothing, 0),
            "close": (nothing, 0),
            "lock": (nothing, 0),
            "unlock": (nothing, 0),
            "connect": (self._connect, 1),
            "disconnect": (self._disconnect, 0),
            "swj_sequence": (nothing, 2),
            "set_clock": (nothing, 1),
            "flush": (nothing, 0),
            "reset": (self._reset, 0),
            "assert_reset": (self._assert_reset, 1),
            "is_reset_asserted": (self._port.is_reset_asserted, 0),
            "read_dp": (self._read_dp, 1),
            "write_dp": (self._write_dp, 2),
            "read_ap": (self._read_ap, 1),
            "write_ap": (self._write_ap, 2),
            "read_ap_multiple": (self._read_ap_multiple, 2),
            "write_ap_multiple": (self._write_ap_multiple, 2),
            # None: pyOCD 0.46 cannot send what it read from an ELF file through such an interface
            "get_memory_interface_for_ap": (nothing, 2),
            "has_swo": (lambda: False, 0),
        }

    def answer(self, line: bytes) -> bytes:
        """The answer to one line, with its line end."""
        number: Json = -1
        try:
            request = _parse(line)
            number = request["id"]
            result = self._do(request)
        except RequestError as error:
            return _error(number, error.status, str(error))
        except TransferFault as fault:
            return _error(number, _FAULT, str(fault))
        except NoAnswer as silence:
            return _error(number, _TRANSFER, str(silence))
        answer = {"id": number, "status": 0}
        if result is not None:
            answer["result"] = result
        return json.dumps(answer, separators=(",", ":")).encode() + b"\n"

    def _do(self, request: dict[str, Json]) -> Json:
        name, arguments = request["request"], request.get("arguments", [])
        if not isinstance(name, str) or name not in self._requests:
            raise RequestError(_GENERAL, f"unknown request {str(name)[:40]!r}")
        handler, count = self._requests[name]
        if not isinstance(arguments, list) or len(arguments) != count:
            raise RequestError(_GENERAL, f"{name} takes a list of {count} arguments")
        return handler(*arguments)

    # -- the probe

    def _nothing(self, *arguments: Json) -> None:
        """What a real probe does and this one has no need of."""

    def _hello(self, version: Json) -> None:
        if version != _PROTOCOL_VERSION:
            raise RequestError(_GENERAL, f"protocol version {str(version)[:20]}: this is version 1")

    def _read_property(self, name: Json) -> Json:
        if not isinstance(name, str) or name not in self._properties:
            raise RequestError(_GENERAL, f"unknown property {str(name)[:40]!r}")
        return self._properties[name]()

    def _connect(self, protocol: Json) -> None:
        if protocol not in _PROTOCOLS:
            raise RequestError(_PROBE, f"wire protocol {str(protocol)[:20]!r}: this is SWD only")
        self._protocol = "SWD"

    def _disconnect(self) -> None:
        self._protocol = None

    def _reset(self) -> None:
        self._port.assert_reset(True)
        self._port.assert_reset(False)

    def _assert_reset(self, asserted: Json) -> None:
        self._port.assert_reset(bool(asserted))

    # -- registers; an access port's register is its number in bits 31 to 24 and an address

    def _read_dp(self, register: Json) -> int:
        return self._port.read_dp(_integer(register, 0xC))

    def _write_dp(self, register: Json, value: Json) -> None:
        self._port.write_dp(_integer(register, 0xC), _word(value))

    def _read_ap(self, register: Json) -> int:
        return self._port.read_ap(*_ap_register(register))

    def _write_ap(self, register: Json, value: Json) -> None:
        self._port.write_ap(*_ap_register(register), _word(value))

    def _read_ap_multiple(self, register: Json, count: Json) -> list[int]:
        return self._port.read_ap_many(*_ap_register(register), _integer(count, MAX_BLOCK_WORDS))

    def _write_ap_multiple(self, register: Json, values: Json) -> None:
        self._port.write_ap_many(*_ap_register(register), _words(values))


def _parse(line: bytes) -> dict[str, Json]:
    """A request with its number; raises RequestError."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise RequestError(_GENERAL, "the line is not JSON") from None
    if not isinstance(request, dict) or type(request.get("id")) is not int:
        raise RequestError(_GENERAL, "a request is an object with an integer 'id'")
    if "request" not in request:
        raise RequestError(_GENERAL, "the key 'request' is missing")
    return request


def _integer(value: Json, largest: int = 0xFFFF_FFFF) -> int:
    if type(value) is not int or not 0 <= value <= largest:
        raise RequestError(_GENERAL, f"{str(value)[:40]!r} is no integer from 0 to {largest:#x}")
    return value


def _word(value: Json) -> int:
    """A value for 32 wires: probes drop the bits above, and pyOCD relies on it."""
    return _integer(value, _LARGEST_VALUE) & 0xFFFF_FFFF


def _words(values: Json) -> list[int]:
    if not isinstance(values, list) or any(
        type(value) is not int or not 0 <= value <= _LARGEST_VALUE for value in values
    ):
        raise RequestError(_GENERAL, "not a list of words")
    return [value & 0xFFFF_FFFF for value in values]


def _ap_register(register: Json) -> tuple[int, int]:
    value = _integer(register)
    return value >> 24, value & 0xFC
