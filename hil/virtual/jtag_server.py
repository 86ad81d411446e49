"""The JTAG side of a virtual STM32's debug port, for OpenOCD's remote_bitbang adapter.

One character a change of the wires (OpenOCD's manual, jtag/drivers/remote_bitbang.txt): a digit
sets TCK, TMS and TDI, `R` asks for TDO, `r` to `u` drive the resets, `Q` ends. The chain is that of
the chips: TDI, the boundary scan's TAP, the core's JTAG-DP, TDO. Source: IEEE 1149.1 (TAP states);
Arm Debug Interface (IHI 0031), chapter 3 (JTAG-DP); RM0385 40.6 and RM0432 DBG (the chain).
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from hil.virtual.debug_port import DebugPort, NoAnswer, TransferFault

# TAP states: 1149.1 figure 6-1; (next with TMS 0, next with TMS 1)
_RESET, _IDLE, _SELECT_DR, _CAPTURE_DR, _SHIFT_DR, _EXIT1_DR, _PAUSE_DR, _EXIT2_DR = range(8)
_UPDATE_DR, _SELECT_IR, _CAPTURE_IR, _SHIFT_IR, _EXIT1_IR, _PAUSE_IR, _EXIT2_IR, _UPDATE_IR = range(
    8, 16
)
_NEXT = (
    (_IDLE, _RESET),
    (_IDLE, _SELECT_DR),
    (_CAPTURE_DR, _SELECT_IR),
    (_SHIFT_DR, _EXIT1_DR),
    (_SHIFT_DR, _EXIT1_DR),
    (_PAUSE_DR, _UPDATE_DR),
    (_PAUSE_DR, _EXIT2_DR),
    (_SHIFT_DR, _UPDATE_DR),
    (_IDLE, _SELECT_DR),
    (_CAPTURE_IR, _RESET),
    (_SHIFT_IR, _EXIT1_IR),
    (_SHIFT_IR, _EXIT1_IR),
    (_PAUSE_IR, _UPDATE_IR),
    (_PAUSE_IR, _EXIT2_IR),
    (_SHIFT_IR, _UPDATE_IR),
    (_IDLE, _SELECT_DR),
)
# Instructions of the JTAG-DP, four bits; any other is BYPASS
_ABORT, _DPACC, _APACC, _IDCODE, _BYPASS = 0x8, 0xA, 0xB, 0xE, 0xF
_IR_BITS, _SCAN_IR_BITS, _SCAN_IDCODE = 4, 5, 0b00001
_ACCESS_BITS = 35
_ACK = 0b010  # OK or FAULT; the sticky flags tell which
_CTRL_STAT, _SELECT, _RDBUFF = 0x4, 0x8, 0xC
_STICKY_CLEARS = {1: 1, 5: 2, 7: 3}  # CTRL/STAT bit, write one to clear -> bit of ABORT
_DEAD = 0  # what a chain that does not answer shifts out


@dataclass(frozen=True, slots=True)
class Chain:
    """Identification codes of the two TAPs."""

    core: int
    scan: int


CHAINS = {  # by family; the nRF52 has no JTAG
    "stm32f7": Chain(0x5BA0_0477, 0x0644_9041),
    "stm32l4": Chain(0x4BA0_0477, 0x0647_0041),
}


class JtagPort:
    """The chain's two TAPs, in step, in front of a debug port."""

    def __init__(self, port: DebugPort, chain: Chain) -> None:
        self._port, self._chain = port, chain
        self._state = _RESET
        self._shift, self._bits = 0, 1
        self._core_ir, self._scan_ir = _IDCODE, _SCAN_IDCODE
        self._result = 0  # of the last access, for the next scan

    @property
    def tdo(self) -> int:
        """The bit that comes out."""
        return self._shift & 1

    def clock(self, tms: int, tdi: int) -> None:
        """A rising edge of TCK."""
        state = self._state
        if state in (_SHIFT_DR, _SHIFT_IR):
            self._shift = self._shift >> 1 | tdi << self._bits - 1
        self._state = state = _NEXT[state][tms]
        if state == _CAPTURE_DR:
            self._capture()
        elif state == _CAPTURE_IR:
            self._shift, self._bits = 1 << _IR_BITS | 1, _IR_BITS + _SCAN_IR_BITS
        elif state == _UPDATE_DR:
            self._update()
        elif state == _UPDATE_IR:
            self._core_ir = self._shift & (1 << _IR_BITS) - 1
            self._scan_ir = self._shift >> _IR_BITS
        elif state == _RESET:
            self.reset()

    def reset(self) -> None:
        """Test-Logic-Reset."""
        self._state = _RESET
        self._core_ir, self._scan_ir = _IDCODE, _SCAN_IDCODE

    def _capture(self) -> None:
        if self._port.protection == "port":
            core, core_bits = _DEAD, 1
        elif self._core_ir == _IDCODE:
            core, core_bits = self._chain.core, 32
        elif self._core_ir in (_DPACC, _APACC, _ABORT):
            core, core_bits = self._result << 3 | _ACK, _ACCESS_BITS
        else:
            core, core_bits = 0, 1
        scan, scan_bits = (self._chain.scan, 32) if self._scan_ir == _SCAN_IDCODE else (0, 1)
        self._shift, self._bits = core | scan << core_bits, core_bits + scan_bits

    def _update(self) -> None:
        if self._core_ir not in (_DPACC, _APACC, _ABORT):
            return
        scanned = self._shift & (1 << _ACCESS_BITS) - 1
        is_read, register, value = scanned & 1, (scanned >> 1 & 3) << 2, scanned >> 3
        with contextlib.suppress(TransferFault, NoAnswer):  # a fault leaves its sticky flag
            if self._core_ir == _DPACC:
                self._access_dp(is_read, register, value)
            elif self._core_ir == _APACC:
                self._access_ap(is_read, register, value)

    def _access_dp(self, is_read: int, register: int, value: int) -> None:
        port = self._port
        if is_read:
            if register != _RDBUFF:  # that one gives the last result once more
                self._result = port.read_dp(register)
        elif register == _CTRL_STAT:
            port.write_dp(0, sum(1 << a for bit, a in _STICKY_CLEARS.items() if value >> bit & 1))
            port.write_dp(register, value)
        elif register == _SELECT:
            port.write_dp(register, value)

    def _access_ap(self, is_read: int, register: int, value: int) -> None:
        number, bank = self._port.selected
        if is_read:
            self._result = self._port.read_ap(number, bank | register)
        else:
            self._port.write_ap(number, bank | register, value)


class JtagServer:
    """Serves one chain on a loopback TCP port, one client after the other, until `close`."""

    def __init__(self, port: DebugPort, chain: Chain) -> None:
        self._port, self._chain = port, chain
        self.on_client: Callable[[], None] = lambda: None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._client: socket.socket | None = None
        threading.Thread(target=self._accept, name="jtag", daemon=True).start()

    @property
    def tcp_port(self) -> int:
        """On 127.0.0.1."""
        number: int = self._listener.getsockname()[1]
        return number

    def close(self) -> None:
        """A client is cut off."""
        for end in (self._listener, self._client):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._client = client
            with contextlib.suppress(OSError), client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.on_client()
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        chain, tck, resets = JtagPort(self._port, self._chain), 0, ord("r")
        while data := client.recv(1 << 16):
            answer = bytearray()
            for character in data:
                if 0x30 <= character < 0x38:
                    if character & 4 and not tck:
                        chain.clock(character >> 1 & 1, character & 1)
                    tck = character & 4
                elif character == 0x52:  # R
                    answer.append(0x30 | chain.tdo)
                elif 0x72 <= character <= 0x75:  # r to u: TRST, SRST
                    if (character - 0x72) & 2:
                        chain.reset()
                    if (character - resets) & 1:
                        self._port.assert_reset(bool((character - 0x72) & 1))
                    resets = character
                elif character == 0x51:  # Q
                    return
            if answer:
                client.sendall(answer)
