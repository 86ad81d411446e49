"""What faults do to the bytes between a virtual board and its host.

Works on whole lines of the board and whole commands of the host, so that a fault can strike any of
their bytes and any line: what is not complete yet waits. Without a fault of the serial line bytes
pass as they are. Which faults are at work is `Faults`' to say.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from hil.virtual.faults import Fault, Faults
from hil.wire import crc32, session_crc

_BYTES = ("garbage", "lost_bytes", "doubled_bytes")
_LINES = ("lost_lines", "doubled_lines", "swapped_lines", "late_lines")
_IDENTITY = ("wrong_board", "stale_firmware")
_OTHERS = ("wrong_baud", "silence", "hang", "hard_fault", "reset_loop", "port_moves")
_ALL = (*_BYTES, *_LINES, *_IDENTITY, *_OTHERS)
_RUNS = (b"rig run ", b"rig layers ", b"infer")
_OTHER_BUILD = b"0ddba11c0ffee000"  # of a firmware that nobody built
_SAMPLES_PER_BIT = 16  # of a UART's receiver that looks for an edge


class SerialFaults:
    """The line between one board and its host.

    Args:
        faults: what is wrong with the board.
        baud: rate of the host's port.
        other_board: type of board that answers in the place of this one.
    """

    def __init__(self, faults: Faults, *, baud: int, other_board: str) -> None:
        self._faults, self._baud, self._other_board = faults, baud, other_board
        self.is_old_image = False  # the flash holds another firmware than the one just flashed
        self.on_reset: Callable[[], None] = lambda: None
        self.on_move: Callable[[], None] = lambda: None
        self.restart()

    def restart(self) -> None:
        """Another flashing or power cycle: what is at work may be something else now."""
        self._active = bool(self._faults.all(_ALL))
        self._line, self._command = b"", b""
        self._lines = self._lines_since_start = self._runs = 0
        self._strike: Fault | None = None
        self._said = 0  # CRC of the session, of what the host gets
        self._held: list[tuple[int, bytes]] = []  # (lines to wait, line)
        self._randoms: dict[str, random.Random] = {}

    def take_strike(self) -> Fault | None:
        """The fault that strikes in the inference that begins now; each once."""
        fault, self._strike = self._strike, None
        return fault

    def to_host(self, data: bytes) -> bytes:
        """What the host gets when the board sends `data`."""
        if not self._active:
            return data
        *lines, self._line = (self._line + data).split(b"\n")
        return b"".join(self._sent(line + b"\n") for line in lines)

    def to_board(self, data: bytes) -> bytes:
        """What the board gets when the host sends `data`."""
        if not self._active:
            return data
        *commands, self._command = (self._command + data).split(b"%")
        return b"".join(self._heard(command + b"%") for command in commands)

    def _sent(self, line: bytes) -> bytes:
        self._lines += 1
        self._lines_since_start += 1
        if line.startswith(b"m-timestamp-mode-"):
            self._lines_since_start = 1
            self._said = 0
        if (f := self._faults.find("port_moves")) and self._lines == f.number("after_lines") + 1:
            self.on_move()
        if (f := self._faults.find("silence")) and self._lines > f.number("after_lines"):
            return b""
        if f := self._faults.find("reset_loop"):
            over = self._lines_since_start - f.number("after_lines")
            if over > 0:
                return b""
            if over == 0:
                self.on_reset()
        lines = self._in_order(self._identified(line))
        data = b"".join(self._with_faults(line, "from_board") for line in lines)
        if f := self._faults.find("wrong_baud"):
            data = at_other_rate(data, int(f.number("baud")), self._baud)
        return data

    def _heard(self, command: bytes) -> bytes:
        if command.startswith(_RUNS):
            self._runs += 1
            for fault in self._faults.all(("hang", "hard_fault")):
                if self._runs == fault.number("command"):
                    self._strike = fault
        command = self._with_faults(command, "to_board")
        if re.fullmatch(rb"rig .* [0-9a-f]{8}%", command):
            self._said = session_crc(command, self._said)
        if f := self._faults.find("wrong_baud"):
            command = at_other_rate(command, self._baud, int(f.number("baud")))
        return command

    def _identified(self, line: bytes) -> bytes:
        """The line as another board or firmware would say it, with the CRC that it would have."""
        other = self._faults.find("wrong_board")
        stale = self._faults.find("stale_firmware") and not self.is_old_image
        if not other and not stale:
            return line
        if other:
            name = (str(other.parameters["board"]) or self._other_board).encode()
            line = re.sub(rb"^(m-rig-hello .* board=|m-name-dut-\[)[^ \]]*", rb"\g<1>" + name, line)
        else:
            line = re.sub(rb"^(m-rig-hello .* build=)[^ ]*", rb"\g<1>" + _OTHER_BUILD, line)
        if not line.startswith(b"m-rig-"):
            return line
        body = line.rstrip().rpartition(b" ")[0]
        self._said = crc32(body, self._said)
        return body + b" %08x\r\n" % self._said

    def _in_order(self, line: bytes) -> list[bytes]:
        """The lines that arrive when this one is sent: itself and earlier ones, or neither."""
        lines = [line]
        for fault in self._faults.all(_LINES):
            if line.startswith(_prefix(fault)) and self._is_hit(fault):
                if fault.name == "doubled_lines":
                    lines.append(line)
                else:
                    lines.clear()
                if fault.name in ("swapped_lines", "late_lines"):
                    by = int(fault.number("by")) if fault.name == "late_lines" else 1
                    self._held.append((by + 1, line))
                break
        self._held = [(wait - 1, held) for wait, held in self._held]
        lines += [held for wait, held in self._held if wait == 0]
        self._held = [(wait, held) for wait, held in self._held if wait > 0]
        return lines

    def _with_faults(self, line: bytes, direction: str) -> bytes:
        for fault in self._faults.all(_BYTES):
            is_way = fault.parameters["direction"] in (direction, "both")
            if is_way and line.startswith(_prefix(fault)):
                line = b"".join(self._byte(fault, byte) for byte in line)
        return line

    def _byte(self, fault: Fault, byte: int) -> bytes:
        if not self._is_hit(fault):
            return bytes([byte])
        if fault.name == "garbage":
            return bytes([byte ^ self._random(fault).randrange(1, 256)])
        return b"" if fault.name == "lost_bytes" else bytes([byte, byte])

    def _is_hit(self, fault: Fault) -> bool:
        return self._random(fault).random() < fault.number("rate")

    def _random(self, fault: Fault) -> random.Random:
        return self._randoms.setdefault(fault.name, random.Random(int(fault.number("seed"))))


def _prefix(fault: Fault) -> bytes:
    return str(fault.parameters["lines"]).encode()


def at_other_rate(data: bytes, sent_baud: int, read_baud: int) -> bytes:
    """What a UART reads at one rate when bytes are sent back to back at another, 8N1.

    The receiver looks for a falling edge 16 times a bit, takes the eight bits behind the start bit
    in their middle, does not mind a stop bit that is none, and waits for the line to be idle then.
    """
    levels = [level for byte in data for level in (0, *(byte >> bit & 1 for bit in range(8)), 1)]
    end = len(levels) * read_baud / sent_baud  # in bits of the receiver, as all times here

    def level(time: float) -> int:
        at = int(time * sent_baud / read_baud)
        return levels[at] if at < len(levels) else 1

    read, time = bytearray(), 0.0
    while time < end:
        if level(time):
            time += 1 / _SAMPLES_PER_BIT
            continue
        if level(time + 0.5):  # too short for a start bit
            time += 0.5
            continue
        read.append(sum(level(time + 1.5 + bit) << bit for bit in range(8)))
        time += 9.5
        while time < end and not level(time):
            time += 1 / _SAMPLES_PER_BIT
    return bytes(read)
