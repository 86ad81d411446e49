"""The remote probe protocol of virtual boards, spoken rightly and by anybody."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hil.board import get_board
from hil.virtual import probe_server
from hil.virtual.probe_server import ProbeServer, ProbeSession
from tests.support.debuggers import DHCSR, KEY, S_HALT, Debugger

NRF = get_board("nrf52840_dk")
GENERAL, PROBE, FAULT = 1, 3, 12
RAM = 0x2000_2000
_DEADLINE_S = 20.0
FUZZ = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def debugger() -> Debugger:
    return Debugger(NRF)


@pytest.fixture
def session(debugger: Debugger) -> Iterator[ProbeSession]:
    yield ProbeSession(debugger.port, NRF.name)
    debugger.core.give_up()
    debugger.debug.power_cycle()
    debugger.port.power_cycle()
    debugger.port.write_dp(4, 0x5000_0000)
    debugger.cpu.power_on()


@pytest.fixture
def server(debugger: Debugger) -> Iterator[ProbeServer]:
    server = ProbeServer(debugger.port, NRF.name)
    yield server
    server.close()


class Client:
    """The other end of a connection."""

    def __init__(self, server: ProbeServer) -> None:
        assert server.address is not None
        _, host, port = server.address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=_DEADLINE_S)
        self.lines = self.socket.makefile("rb")

    def ask(self, name: str, *arguments: Any) -> dict[str, Any]:
        self.send(request(name, *arguments) + b"\n")
        return self.answer()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.lines.readline())
        return answer

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def request(name: Any, *arguments: Any, number: Any = 7) -> bytes:
    return json.dumps({"id": number, "request": name, "arguments": list(arguments)}).encode()


def ask(session: ProbeSession, name: str, *arguments: Any) -> dict[str, Any]:
    line = session.answer(request(name, *arguments))
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    answer: dict[str, Any] = json.loads(line)
    assert answer["id"] == 7
    return answer


# -- requests


def test_a_client_learns_what_the_probe_can_do(session: ProbeSession) -> None:
    assert ask(session, "hello", 1) == {"id": 7, "status": 0}
    assert ask(session, "readprop", "product_name")["result"] == NRF.name
    assert "DEFAULT" in ask(session, "readprop", "supported_wire_protocols")["result"]
    assert "result" not in ask(session, "readprop", "wire_protocol")
    assert ask(session, "connect", "DEFAULT")["status"] == 0
    assert ask(session, "readprop", "wire_protocol")["result"] == "SWD"


@pytest.mark.parametrize("name", ["open", "close", "lock", "unlock", "flush", "disconnect"])
def test_what_needs_nothing_is_done(session: ProbeSession, name: str) -> None:
    assert ask(session, name) == {"id": 7, "status": 0}


def test_registers_are_read_and_written(session: ProbeSession) -> None:
    assert ask(session, "read_dp", 0)["result"] == 0x2BA01477
    assert ask(session, "read_ap", 0xFC)["result"] == 0x24770011
    assert ask(session, "read_ap", 0x0100_00FC)["result"] == 0x02880000
    assert ask(session, "write_ap", 0x04, RAM)["status"] == 0
    assert ask(session, "write_ap", 0x00, 0x2300_0012)["status"] == 0
    assert ask(session, "write_ap_multiple", 0x0C, [1, 2, 3])["status"] == 0
    assert ask(session, "write_ap", 0x04, RAM)["status"] == 0
    assert ask(session, "read_ap_multiple", 0x0C, 3)["result"] == [1, 2, 3]


def test_words_are_read_and_written_in_one_piece(session: ProbeSession) -> None:
    values = [3 * i for i in range(2000)]
    ask(session, "write_ap", 0x00, 0x2300_0012)
    for start in (0, 1024):  # the address counts within 4 KiB
        ask(session, "write_ap", 0x04, RAM + 4 * start)
        part = values[start : start + 1024]
        assert ask(session, "write_ap_multiple", 0x0C, part)["status"] == 0
        ask(session, "write_ap", 0x04, RAM + 4 * start)
        assert ask(session, "read_ap_multiple", 0x0C, len(part))["result"] == part


def test_only_the_wires_of_a_value_are_driven(session: ProbeSession) -> None:
    ask(session, "write_ap", 0x04, 1 << 32 | RAM)

    assert ask(session, "read_ap", 0x04)["result"] == RAM


def test_memory_goes_through_the_access_port_s_registers(session: ProbeSession) -> None:
    assert "result" not in ask(session, "get_memory_interface_for_ap", 1, 0)


def test_the_reset_line_is_the_board_s(session: ProbeSession) -> None:
    ask(session, "assert_reset", True)
    assert ask(session, "is_reset_asserted")["result"] is True
    ask(session, "assert_reset", False)
    assert ask(session, "is_reset_asserted")["result"] is False


# -- wrong requests


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"[]", "integer 'id'"),
        (b"{}", "integer 'id'"),
        (b'{"id": true, "request": "open"}', "integer 'id'"),
        (b'{"id": "1", "request": "open"}', "integer 'id'"),
        (b'{"id": 1}', "'request'"),
        (b'{"id": 1, "request": []}', "unknown request"),
        (b'{"id": 1, "request": "format_disk"}', "unknown request"),
        (b'{"id": 1, "request": "open", "arguments": {}}', "0 arguments"),
        (b'{"id": 1, "request": "read_dp", "arguments": [0, 4]}', "1 arguments"),
        (request("hello", 2), "version 1"),
        (request("readprop", ["a"]), "unknown property"),
        (request("readprop", "__class__"), "unknown property"),
        (request("connect", "JTAG"), "SWD only"),
        (request("read_dp", -4), "no integer"),
        (request("read_dp", 1.0), "no integer"),
        (request("read_dp", True), "no integer"),
        (request("write_dp", 4, 1 << 65), "no integer"),
        (request("write_ap_multiple", 0x0C, "abc"), "not a list"),
        (request("write_ap_multiple", 0x0C, [1, None]), "not a list"),
        (request("read_ap_multiple", 0x0C, 1 << 31), "no integer"),
        (request("read_mem", 0, RAM, 32), "unknown request"),
    ],
)
def test_a_wrong_request_is_answered_with_why(session: ProbeSession, line, why) -> None:
    answer = json.loads(session.answer(line))

    assert answer["status"] in (GENERAL, PROBE)
    assert why in answer["error"]
    assert ask(session, "read_dp", 0)["status"] == 0


def test_a_fault_of_the_bus_says_where(session: ProbeSession) -> None:
    ask(session, "write_ap", 0x04, 0x3000_0000)

    answer = ask(session, "read_ap", 0x0C)

    assert answer["status"] == FAULT
    assert "0x30000000" in answer["error"]


def test_a_locked_chip_faults(session: ProbeSession, debugger: Debugger) -> None:
    controller = debugger.cpu.flash_controller
    assert controller is not None
    controller.protect()
    try:
        assert ask(session, "read_ap", 0x0100_000C)["result"] == 0
        assert ask(session, "read_ap_multiple", 0x0C, 4)["status"] == FAULT
    finally:
        controller.erase_chip()


# Values that a request may hold where a number, a name or a list is expected.
_addresses = st.sampled_from([0, 4, RAM, RAM + 1, 0x1000_0000, DHCSR, 0xE000_1000, 0xFFFF_FFFC])
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | _addresses
    | st.integers(0, 64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
_NAMES = """hello readprop open close connect disconnect swj_sequence set_clock reset assert_reset
is_reset_asserted read_dp write_dp read_ap write_ap read_ap_multiple write_ap_multiple
get_memory_interface_for_ap has_swo nonsense"""
_names = st.sampled_from(_NAMES.split())
# Places where something happens when a debugger looks or writes there
_pages = [0, RAM, 0x1000_0000, 0x1000_1000, 0x4000_0000, 0x4000_2000, 0x4000_8000, 0x4001_E000]
_pages += [0x5000_0500, 0xE000_0000, 0xE000_1000, 0xE000_2000, 0xE000_E000, 0xE00F_F000]
_anywhere = st.builds(
    lambda page, offset: page + offset,
    st.sampled_from(_pages),
    st.integers(0, 0x3FF).map(lambda word: 4 * word) | st.integers(0, 0xFFF),
)
_word = st.integers(0, 0xFFFF_FFFF) | st.integers(0, 7) | st.just(KEY | 3) | st.just(KEY | 5)


@FUZZ
@given(name=_names, arguments=st.lists(_values, max_size=5))
def test_any_request_gets_an_answer(session: ProbeSession, name, arguments) -> None:
    answer = json.loads(session.answer(request(name, *arguments)))

    assert answer["id"] == 7
    assert answer["status"] == 0 or answer["error"]


@FUZZ
@given(line=st.binary(max_size=80).filter(lambda data: b"\n" not in data))
def test_any_bytes_get_an_answer(session: ProbeSession, line) -> None:
    answer = json.loads(session.answer(line))

    assert answer["status"] == 0 or answer["error"]


@FUZZ
@given(
    accesses=st.lists(
        st.tuples(st.booleans(), _anywhere, _word, st.sampled_from([8, 16, 32])),
        min_size=1,
        max_size=8,
    )
)
def test_any_access_gets_an_answer(session: ProbeSession, accesses) -> None:
    for is_write, address, value, bits in accesses:
        ask(session, "write_ap", 0x00, 0x2300_0010 | bits >> 4)
        ask(session, "write_ap", 0x04, address)
        answer = ask(session, *(("write_ap", 0x0C, value) if is_write else ("read_ap", 0x0C)))
        assert answer["status"] in (0, FAULT)
        ask(session, "write_dp", 0, 0x1E)


@FUZZ
@given(registers=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 63), _word)))
def test_any_register_gets_an_answer(session: ProbeSession, registers) -> None:
    for is_write, port, register, value in registers:
        at = port << 24 | register << 2
        answer = ask(session, "write_ap", at, value) if is_write else ask(session, "read_ap", at)
        assert answer["status"] in (0, FAULT)
    ask(session, "write_dp", 0, 0x1E)
    ask(session, "write_dp", 4, 0x5000_0000)
    assert ask(session, "read_ap", 0xFC)["result"] == 0x24770011


# -- connections


def test_requests_may_come_in_pieces_and_together(server: ProbeServer) -> None:
    client = Client(server)
    line = request("read_dp", 0) + b"\n"
    for i in range(len(line)):
        client.send(line[i : i + 1])
    client.send(line + line)

    assert [client.answer()["result"] for _ in range(3)] == [0x2BA01477] * 3
    client.close()


def test_a_second_client_is_told_why_it_has_to_wait(server: ProbeServer) -> None:
    first, second = Client(server), Client(server)
    assert first.ask("read_dp", 0)["status"] == 0

    refusal = second.answer()

    assert refusal["status"] == PROBE
    assert "another client" in refusal["error"]
    assert second.lines.readline() == b""
    assert first.ask("read_dp", 0)["status"] == 0
    first.close()
    second.close()


def test_the_next_client_is_served_when_the_first_has_gone(server: ProbeServer) -> None:
    for _ in range(3):
        client = Client(server)
        while (answer := _try(client))["status"] == PROBE:  # the one before is not forgotten yet
            client.close()
            client = Client(server)
        assert answer["result"] == 0x2BA01477
        client.close()


def _try(client: Client) -> dict[str, Any]:
    try:
        return client.ask("read_dp", 0)
    except (OSError, ValueError):  # refused before it asked
        return {"status": PROBE}


def test_a_line_without_end_is_cut_off(server: ProbeServer, monkeypatch) -> None:
    monkeypatch.setattr(probe_server, "MAX_LINE_BYTES", 100_000)
    client = Client(server)
    with pytest.raises(OSError):
        for _ in range(1000):
            client.send(b"x" * 10_000)
        client.lines.readline()
        raise ConnectionResetError  # closed in order: nothing came
    client.close()


def test_a_pulled_probe_is_gone_and_returns_elsewhere(server: ProbeServer) -> None:
    client = Client(server)
    assert client.ask("read_dp", 0)["status"] == 0
    before = server.address

    server.close()
    assert server.address is None
    assert client.lines.readline() == b""
    client.close()

    server.open()
    assert server.address not in (None, before)
    again = Client(server)
    assert again.ask("read_dp", 0)["status"] == 0
    again.close()


def test_a_client_that_vanishes_leaves_the_core_as_it_was(
    server: ProbeServer, debugger: Debugger
) -> None:
    client = Client(server)
    client.ask("write_ap", 0x00, 0x2300_0012)
    client.ask("write_ap", 0x04, DHCSR)
    client.ask("write_ap", 0x0C, KEY | 3)
    client.close()

    assert debugger.read(DHCSR) & S_HALT
    debugger.detach()


def test_a_closed_server_leaves_no_thread(debugger: Debugger) -> None:
    before = set(threading.enumerate())
    server = ProbeServer(debugger.port, NRF.name)
    client = Client(server)
    client.ask("read_dp", 0)
    server.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(_DEADLINE_S)

    assert set(threading.enumerate()) <= before
    client.close()
