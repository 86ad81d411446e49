"""Peripherals on the bus: which one answers an address, and what the core sees of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from unicorn import Uc, unicorn_const

from hil.errors import HilError
from hil.virtual.engine_calls import Kept, map_reads
from hil.virtual.memory import PAGE_BYTES
from hil.virtual.peripherals.registers import BusFault, Peripheral


class NeedExactTime(Exception):
    """A read depends on the time: the core has to stop at its instruction to know it."""


class HaltRequested(Exception):
    """Somebody waits for the core to halt: it stops before this access."""


class Bus:
    """Maps the pages of all peripherals into the engine.

    A read comes as a callback of Unicorn's memory-mapped input. Pages are mapped read-only: so a
    write comes as a protection event, whose pc is exact, and is done there.
    """

    def __init__(
        self,
        engine: Uc,
        peripherals: list[Peripheral],
        before_read: Callable[[], None],
        on_read_trouble: Callable[[Exception, int, int], None],
    ) -> None:
        self.accesses = 0
        self._peripherals = peripherals
        self._before_read, self._on_read_trouble = before_read, on_read_trouble
        self._pages: dict[int, list[Peripheral]] = defaultdict(list)
        for peripheral in peripherals:
            for page in range(
                peripheral.base & -PAGE_BYTES, peripheral.base + peripheral.SIZE_BYTES, PAGE_BYTES
            ):
                self._pages[page].append(peripheral)
        self._kept: Kept = []
        for page in self._pages:
            map_reads(engine, page, PAGE_BYTES, self._read, self._kept)
            engine.mem_protect(page, PAGE_BYTES, unicorn_const.UC_PROT_READ)

    def holds(self, address: int) -> bool:
        """Whether a peripheral's page is at this address."""
        return address & -PAGE_BYTES in self._pages

    def find(self, address: int) -> Peripheral | None:
        """The peripheral at this address."""
        for peripheral in self._pages.get(address & -PAGE_BYTES, ()):
            if peripheral.base <= address < peripheral.base + peripheral.SIZE_BYTES:
                return peripheral
        return None

    def reset(self) -> None:
        """All peripherals as after a reset of the chip."""
        for peripheral in self._peripherals:
            peripheral.reset()

    def write(self, address: int, size_bytes: int, value: int) -> None:
        """A write of the program; raises BusFault."""
        self.accesses += 1
        peripheral = self.find(address)
        if peripheral is None:
            raise BusFault("no peripheral is modelled there")
        peripheral.write(address - peripheral.base, size_bytes, value)

    def _read(self, address: int, size_bytes: int) -> int:
        try:
            self._before_read()
            self.accesses += 1
            peripheral = self.find(address)
            if peripheral is None:
                raise BusFault("no peripheral is modelled there")
            return peripheral.read(address - peripheral.base, size_bytes)
        except (BusFault, NeedExactTime, HaltRequested, HilError) as trouble:
            self._on_read_trouble(trouble, address, size_bytes)
            return 0
