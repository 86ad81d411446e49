"""Stand-in of an ST X-NUCLEO-LPM01A (hil/meters/lpm01a.py has the protocol and its source)."""

from __future__ import annotations

import math
import re

import numpy as np

from hil.virtual.fake_meter import FakeMeter
from hil.virtual.power_model import Load

MAX_CURRENT_UA = 50_000.0
SAMPLES_PER_TIMESTAMP = 1000
_PROMPT = b"\r\nPowerShield > "
_NOISE = 0.004  # of the energy of a sample
_FREQUENCIES_HZ = {"1k": 1_000, "2k": 2_000, "5k": 5_000}
_STANDALONE = ("htc", "hrc", "powershield", "version", "status", "echo", "stop")


class FakeLpm01a(FakeMeter):
    """An LPM01A that supplies a virtual board; the trigger is its input D7.

    Of its streams it has energy in ASCII, at 1 to 5 kHz; it refuses to start another one.
    """

    kind = "lpm01a"

    _random = np.random.default_rng(0)
    _received = b""
    _is_host_mode = False
    _rate_hz = 0
    _output_type, _format = "current", "ascii_dec"
    _has_events = False
    _start_s = 0.0
    _samples = 0  # so far
    _events = 0
    _charge_uc = 0.0  # in the sample that has begun
    _summed_to_uc = 0.0  # of `current` since its last change

    def command(self, data: bytes) -> None:
        """See FakeMeter.command."""
        self._received += data
        *lines, self._received = re.split(rb"[\r\n]+", self._received)
        for line in lines:
            if line.strip(b"\0 "):
                self._do(line.strip(b"\0 ").decode("ascii", "replace"))

    def _do(self, line: str) -> None:
        verb, *arguments = line.split(" ")
        if verb == "stop":
            self._stop()
            return
        if not self._is_host_mode and verb not in _STANDALONE:
            self._refuse(line, "not in host mode")
            return
        argument = arguments[0] if arguments else ""
        answer = ""
        if verb in ("htc", "hrc"):
            self._is_host_mode = verb == "htc"
        elif verb == "powershield":
            answer = " PowerShield present: 540619864-1110659081-4784204"
        elif verb == "volt" and re.fullmatch(r"\d{4}m", argument):
            self.supply_mv = int(argument[:-1])
        elif verb == "freq" and argument in _FREQUENCIES_HZ:
            self._rate_hz = _FREQUENCIES_HZ[argument]
        elif verb == "output" and argument in ("current", "energy"):
            self._output_type = argument
        elif verb == "format" and argument in ("ascii_dec", "bin_hexa"):
            self._format = argument
        elif verb == "eventsrc" and arguments == ["d7", "fal"]:
            self._has_events = True
        elif verb == "pwr" and argument in ("on", "off"):
            self.switch(argument == "on")
        elif verb == "start" and (self._output_type, self._format) == ("energy", "ascii_dec"):
            self.send(_PROMPT + f"ack {line}\r\n\r\n".encode())
            self._start()
            return
        elif verb not in ("acqtime", "trigdelay", "trigsrc", "echo", "lcd", "status", "version"):
            self._refuse(line, "unknown command or argument")
            return
        self.send(_PROMPT + f"ack {line}{answer}\r\n\r\n".encode())

    def _refuse(self, line: str, why: str) -> None:
        self.send(_PROMPT + f"error {line}\r\nError detail: {why}\r\n".encode())

    def _start(self) -> None:
        self._random = np.random.default_rng(0)
        self._start_s, self._samples, self._events = self.now_s, 0, 0
        self._charge_uc = 0.0
        self._summed_to_uc = self.current.charge_to(self.now_s)
        self.sampling = True

    def _stop(self) -> None:
        if self.sampling:
            self.sampling = False
            self.send(b"\r\nend\r\n\r\nsummary beg\r\n\r\nsummary end\r\n")
            self.send(_PROMPT + b"Acquisition completed\r\n\r\n")

    def load_changed(self, load: Load) -> None:
        """See FakeMeter.load_changed: too much current ends the acquisition."""
        self._summed_to_uc = 0.0
        if load.mean_ua > MAX_CURRENT_UA and self.sampling:
            self.sampling = False
            self.send(b"\r\nerror overcurrent\r\n")

    def fell(self) -> None:
        """See FakeMeter.fell."""
        if self.sampling and self._has_events:
            self.send(b"event %02d ris\r\n" % self._events)
            self._events += 1

    def make_samples(self, start_s: float, end_s: float) -> None:
        """See FakeMeter.make_samples."""
        done = math.floor((end_s - self._start_s) * self._rate_hz)
        count = max(0, done - self._samples)
        ends = self._start_s + (self._samples + 1 + np.arange(count)) / self._rate_hz
        sums = self.current.charge_uc(np.append(np.clip(ends, start_s, end_s), end_s))
        parts = np.diff(sums, prepend=self._summed_to_uc)
        self._summed_to_uc = float(sums[-1])
        parts[0] += self._charge_uc
        self._charge_uc = float(parts[-1])
        noise = 1 + _NOISE * self._random.standard_normal(count)
        energies = parts[:count] * noise * self.supply_mv * 1e-9  # uC x mV
        dropped = self.dropped(count)
        lines = []
        for number, energy in enumerate(energies.tolist()):
            if self._samples % SAMPLES_PER_TIMESTAMP == 0:
                milliseconds = self._samples * 1000 // self._rate_hz
                seconds, milliseconds = divmod(milliseconds, 1000)
                lines.append(f"\r\nTimeStamp: {seconds % 1000:03d}s {milliseconds:03d}ms, buff 00%")
            self._samples += 1
            if number >= dropped:
                lines.append(number_text(energy))
        if lines:
            self.send("\r\n".join([*lines, ""]).encode())


def number_text(value: float) -> str:
    """Four digits and a power of ten, as the device writes numbers."""
    if value <= 0:
        return "0000+00"
    exponent = math.floor(math.log10(value)) - 3
    digits = round(value / 10.0**exponent)
    if digits == 10_000:
        digits, exponent = 1_000, exponent + 1
    return f"{digits:04d}{exponent:+03d}"
