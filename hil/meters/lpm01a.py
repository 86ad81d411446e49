"""ST X-NUCLEO-LPM01A: supplies 1.8 to 3.3 V, at most 50 mA, and integrates the energy itself.

Protocol: UM2269 (PowerShield firmware), 4.3 commands, 4.4.1 ASCII stream; the event lines of input
D7 and energy at more than 100 Hz are those of the firmware that the MLPerf Tiny runner relies on
(mlcommons/tiny, benchmark/runner/power_manager/power_manager_lpm.py). A sample `6409-07` is the
energy of one period, 6409e-7 J; every 1000 samples a line tells the time, so lost ones are noticed.
Own code from these facts; not compared with a device yet.

ASCII at 5 kHz is the fastest stream of unlimited length that carries events. That is five samples
in a millisecond: the window's share of the first and last one follows from the idle power beside
it (hil.meters.window).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import numpy as np

from hil.errors import MeterError, SamplesLost
from hil.meters.port import MeterPort
from hil.meters.window import Samples

USB_ID = "0483:5740"  # every STM32 virtual COM port has it: the product's name decides
USB_PRODUCT = "PowerShield"
BAUD = 3_686_400
RATE_HZ = 5_000
PERIOD_S = 1 / RATE_HZ
SUPPLY_MV = range(1800, 3301)
MAX_MA = 50
SAMPLES_PER_TIMESTAMP = 1000
TIMESTAMP_MS = SAMPLES_PER_TIMESTAMP * 1000 // RATE_HZ

ANSWER_S, STOP_S = 15.0, 2.0  # a new voltage makes it calibrate itself first
_LINE_BYTES = 200  # longer lines are noise

_SAMPLE = re.compile(rb"(\d{4})([+-]\d{2})$")
_EVENT = re.compile(rb"event (\d+) (?:ris|fal)$")
_TIMESTAMP = re.compile(rb"TimeStamp: (\d{3})s (\d{3})ms, buff (\d{2,3})%$")
_ANSWER = re.compile(rb"(?:PowerShield > )?(ack|err(?:or)?)\b *(.*)$")
_MILLISECONDS = 1_000_000  # the time stamp has three digits of seconds, then starts again


class Decoder:
    """Lines of an acquisition to energies and events; keeps what spans two calls."""

    def __init__(self, meter: str) -> None:
        self._meter = meter
        self._rest = b""
        self._events: int | None = None  # number of the last one
        self._since_timestamp: int | None = None
        self._timestamp_ms: int | None = None
        self.timestamps = 0  # seen so far
        self.ended = False

    def decode(self, data: bytes) -> tuple[list[float], list[int]]:
        """(joules of the next samples, numbers of those during which the trigger fell).

        Raises:
            SamplesLost: the time stamps do not fit the samples between them, or an event is
                missing.
            MeterError: the device reports an error, or sends what is no line of an acquisition.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            raise self._noise(self._rest)
        energies: list[float] = []
        events: list[int] = []
        for raw in lines:
            line = raw.strip(b"\r\0 ")
            if match := _SAMPLE.match(line):
                energies.append(int(match[1]) * 10.0 ** int(match[2]))
                if self._since_timestamp is not None:
                    self._since_timestamp += 1
            elif match := _EVENT.match(line):
                self._count_event(int(match[1]))
                events.append(len(energies))
            elif match := _TIMESTAMP.match(line):
                self._check_time(1000 * int(match[1]) + int(match[2]))
            elif line == b"end" or line.endswith(b"Acquisition completed"):
                self.ended = True
            elif line.startswith((b"error", b"PowerShield > err")):
                hint = f"; it supplies {MAX_MA} mA at most" if b"overcurrent" in line else ""
                raise MeterError(self._meter, f"reports {_text(line)!r}{hint}")
            elif line and not self.ended and not _ANSWER.match(line):
                raise self._noise(line)
        return energies, events

    def _count_event(self, number: int) -> None:
        before, self._events = self._events, number
        if before is not None and number != before + 1 and number != 0:
            raise SamplesLost(self._meter, f"event {number} came behind event {before}")

    def _check_time(self, now_ms: int) -> None:
        count, before = self._since_timestamp, self._timestamp_ms
        self._since_timestamp, self._timestamp_ms = 0, now_ms
        self.timestamps += 1
        if before is None or count is None:
            return
        step_ms = (now_ms - before) % _MILLISECONDS
        if count != SAMPLES_PER_TIMESTAMP or abs(step_ms - TIMESTAMP_MS) > 1:
            raise SamplesLost(
                self._meter,
                f"{count:,} samples came in {step_ms} ms where {SAMPLES_PER_TIMESTAMP:,} in "
                f"{TIMESTAMP_MS} ms are due; plug the meter into a port of its own, without a hub",
            )

    def _noise(self, line: bytes) -> MeterError:
        return MeterError(
            self._meter,
            f"sends {_text(line[:40])!r}, which is no line of an LPM01A; is it one?",
        )


class Lpm01a:
    """An open LPM01A.

    Args:
        port: path of its serial port.
        supply_mv: what it supplies the board with; it cannot sit in another supply.
        board_mv: taken when `supply_mv` is None.
    """

    kind = "lpm01a"
    can_supply = True

    def __init__(
        self, port: str, *, supply_mv: int | None, board_mv: int, trigger_channel: int = 0
    ) -> None:
        self.supply_mv = board_mv if supply_mv is None else supply_mv
        if self.supply_mv not in SUPPLY_MV:
            raise MeterError(
                f"lpm01a at {port}",
                f"{self.supply_mv} mV: it supplies {SUPPLY_MV.start} to {SUPPLY_MV.stop - 1} mV",
            )
        self._port = MeterPort(self.kind, port, BAUD)
        self.name = self._port.name
        self._decoder: Decoder | None = None
        self._text = b""
        try:
            self._port.write(b"stop\r\n")  # whoever used it before may not have
            for command in (
                "htc",
                "acqtime inf",
                "trigdelay 0",
                "trigsrc sw",
                "eventsrc d7 fal",
                "output energy",
                "format ascii_dec",
                f"freq {RATE_HZ // 1000}k",
                f"volt {self.supply_mv}m",
                "pwr on nostatus",
            ):
                self._command(command)
        except BaseException:
            self._port.close()
            raise

    def set_power(self, on: bool) -> None:
        """Switches the board's supply."""
        self._command(f"pwr {'on' if on else 'off'} nostatus")

    def start(self) -> None:
        """Begins to sample."""
        self._text = b""
        self._command("start")
        self._decoder = Decoder(self.name)

    def wait(self, timeout_s: float) -> bool:
        """Whether bytes came within `timeout_s`."""
        return bool(self._text) or self._port.wait(timeout_s)

    def take(self) -> Samples:
        """All samples since the last call; raises SamplesLost, MeterError."""
        assert self._decoder is not None, "start comes first"
        data, self._text = self._text + self._port.take(), b""
        energies, falls = self._decoder.decode(data)
        power = np.array(energies, np.float64) * (1e6 * RATE_HZ)
        return Samples(
            PERIOD_S,
            power.astype(np.float32),
            falls=np.array(falls, np.int64),
            averaged=True,
        )

    def stop(self) -> None:
        """Ends sampling, once the next time stamp has shown that no sample was lost."""
        assert self._decoder is not None, "start comes first"
        decoder, self._decoder = self._decoder, None
        seen = decoder.timestamps
        try:
            self._wait_for(decoder, lambda: decoder.timestamps > seen, "time stamp")
        finally:
            self._port.write(b"stop\r\n")
        self._wait_for(decoder, lambda: decoder.ended, "end of the acquisition")

    def _wait_for(self, decoder: Decoder, is_there: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + STOP_S
        while not is_there():
            left = deadline - time.monotonic()
            if left <= 0:
                raise MeterError(self.name, f"sent no {what} within {STOP_S:.0f} s")
            if self._port.wait(left):
                decoder.decode(self._port.take())

    def close(self) -> None:
        """Frees the meter, which goes on supplying the board; closing twice is fine."""
        self._port.close()

    def _command(self, command: str) -> None:
        """Sends a command and waits until it is acknowledged."""
        self._port.write(command.encode("ascii") + b"\r\n")
        deadline = time.monotonic() + ANSWER_S
        text, wanted = b"", command.encode("ascii")
        while True:
            *lines, text = text.split(b"\n")
            for number, line in enumerate(lines):
                match = _ANSWER.match(line.strip(b"\r\0 "))
                if match is None or wanted not in match[2]:
                    continue
                if match[1] != b"ack":
                    raise MeterError(
                        self.name,
                        f"refuses {command!r}; its firmware should be one that the MLPerf Tiny "
                        "runner works with (events, energy at 5 kHz)",
                    )
                self._text = b"\n".join([*lines[number + 1 :], text])
                return
            left = deadline - time.monotonic()
            if left <= 0 or len(text) > 65_536:
                raise MeterError(
                    self.name,
                    f"does not acknowledge {command!r} (last bytes {text[-40:]!r}); is it an "
                    "LPM01A, and is nobody pressing its buttons?",
                )
            if self._port.wait(left):
                text += self._port.take()


def _text(line: bytes) -> str:
    return line.decode("ascii", "backslashreplace")
