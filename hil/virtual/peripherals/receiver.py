"""The receiving side of all UARTs: bytes arrive when the program waits for one.

How long a host takes to send a byte must not change what the program computes or how many cycles it
counts. So a byte reaches the receiver only through polling, one at a time: the first polls after a
byte moved answer "empty" without looking, and the poll after those stops virtual time until the
host sends something. A program that does other things between its polls (looks at a timer, drives a
pin) is not waiting: there time goes on, and the host is only looked at.
"""

from __future__ import annotations

from hil.virtual.peripherals.registers import Chip

# A transmit loop polls the same register once or twice for each byte; a receive loop only polls.
POLLS_BEFORE_WAITING = 8


class Receiver:
    """Holds at most one byte."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self.reset()

    def reset(self) -> None:
        """Empty."""
        self.byte: int | None = None
        self._polls = 0  # since a byte last moved, in either direction
        self._last_poll = -1  # number of the access

    def poll(self) -> bool:
        """Whether a byte is there; called when the program reads the register that says so."""
        access = self._chip.accesses()
        only_polled, self._last_poll = access == self._last_poll + 1, access
        if self.byte is None:
            self._polls += 1
            if self._polls >= POLLS_BEFORE_WAITING:
                self.byte = self._chip.console.receive(wait=only_polled)
        return self.byte is not None

    def take(self) -> int:
        """The byte; 0 if there is none, as real receivers give whatever they hold."""
        byte, self.byte = self.byte, None
        self._polls = 0
        return byte or 0

    def byte_sent(self) -> None:
        """The program is transmitting, not waiting."""
        self._polls = 0
