"""What the flash controllers of the STM32 families share: locks, and readout protection."""

from __future__ import annotations

from typing import ClassVar

from hil.virtual.peripherals.registers import BusFault, Chip, FlashController, Protection

_KEYS = (0x4567_0123, 0xCDEF_89AB)
_OPTION_KEYS = (0x0819_2A3B, 0x4C5D_6E7F)
LOCK = 1 << 31
_RDP_OPEN, _RDP_PORT = 0xAA, 0xCC  # level 0, level 2; any other value is level 1
_RDP_LOCKED = 0xBB
_WRPERR = 1 << 4


class LockedFlash(FlashController):
    """KEYR unlocks CR, whose uppermost bit locks; flags in SR are cleared by writing ones.

    Option bytes keep their values over resets. Of them only the readout protection acts: at level 1
    a debugger neither reads nor changes the flash, and going back to level 0 erases the chip.
    """

    OPTIONS: ClassVar[dict[str, int]]  # registers of the option bytes, with the values as delivered
    RDP: ClassVar[tuple[str, int]]  # register and shift of the readout protection's byte
    OPTION_LOCK: ClassVar[tuple[str, int]]  # register and bit that locks the option bytes

    def __init__(self, chip: Chip, name: str, base: int) -> None:
        self._options = dict(self.OPTIONS)  # as the option bytes hold them
        super().__init__(chip, name, base)

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self.values |= self._options
        register, bit = self.OPTION_LOCK
        self.values[register] |= bit
        self._keys_seen = self._option_keys_seen = 0
        self._locked_out = False  # a wrong key locks until the next reset

    @property
    def is_locked(self) -> bool:
        """Whether CR ignores writes."""
        return bool(self.values["CR"] & LOCK)

    @property
    def are_options_locked(self) -> bool:
        """Whether the option bytes cannot be written."""
        register, bit = self.OPTION_LOCK
        return bool(self.values[register] & bit)

    @property
    def protection(self) -> Protection:
        """See FlashController.protection."""
        register, shift = self.RDP
        level = self._options[register] >> shift & 0xFF
        return "open" if level == _RDP_OPEN else "port" if level == _RDP_PORT else "flash"

    def protect(self) -> None:
        """See FlashController.protect: readout protection level 1."""
        register, shift = self.RDP
        kept = self._options[register] & ~(0xFF << shift)
        self._options[register] = self.values[register] = kept | _RDP_LOCKED << shift

    def erase_chip(self) -> None:
        """See FlashController.erase_chip; what a return to level 0 does."""
        register, shift = self.RDP
        kept = self._options[register] & ~(0xFF << shift)
        self._options[register] = self.values[register] = kept | _RDP_OPEN << shift
        self.chip.rewrite_flash(0, b"\xff" * self.chip.board.flash_bytes)

    def store_options(self) -> None:
        """What the registers of the option bytes say is kept."""
        before = self.protection
        self._options = {name: self.values[name] for name in self._options}
        if before == "flash" and self.protection == "open":
            self.erase_chip()

    @property
    def refuses_changes(self) -> bool:
        """Whether the flash cannot be erased or written because a debugger is attached."""
        return self.under_debug and self.protection == "flash"

    def erase(self, ranges: list[tuple[int, int]]) -> bool:
        """Erases these ranges of offsets, unless the chip is protected; whether it did."""
        if self.refuses_changes:
            self.values["SR"] |= _WRPERR
            return False
        for start, end in ranges:
            self.chip.rewrite_flash(start, b"\xff" * (end - start))
        return True

    def check_changes(self) -> None:
        """Raises BusFault when the chip is protected against being written."""
        if self.refuses_changes:
            self.values["SR"] |= _WRPERR
            raise BusFault("flash is written by a debugger while it is protected (RDP level 1)")

    def write_KEYR(self, value: int) -> None:
        """Two keys in order unlock CR."""
        if self._locked_out or value != _KEYS[self._keys_seen]:
            self._locked_out = True
            return
        self._keys_seen += 1
        if self._keys_seen == len(_KEYS):
            self._keys_seen = 0
            self.values["CR"] &= ~LOCK

    def write_OPTKEYR(self, value: int) -> None:
        """Two keys in order unlock the option bytes."""
        if value != _OPTION_KEYS[self._option_keys_seen]:
            self._option_keys_seen = 0
            return
        self._option_keys_seen += 1
        if self._option_keys_seen == len(_OPTION_KEYS):
            self._option_keys_seen = 0
            register, bit = self.OPTION_LOCK
            self.values[register] &= ~bit

    def write_SR(self, value: int) -> None:
        """Writing ones clears."""
        self.values["SR"] &= ~value
