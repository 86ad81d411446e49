"""The lock in front of the flash that the STM32 families share."""

from __future__ import annotations

from hil.virtual.peripherals.registers import FlashController

_KEYS = (0x4567_0123, 0xCDEF_89AB)
LOCK = 1 << 31


class LockedFlash(FlashController):
    """KEYR unlocks CR, whose uppermost bit locks; flags in SR are cleared by writing ones."""

    def reset(self) -> None:
        """See Peripheral.reset."""
        super().reset()
        self._keys_seen = 0
        self._locked_out = False  # a wrong key locks until the next reset

    @property
    def is_locked(self) -> bool:
        """Whether CR ignores writes."""
        return bool(self.values["CR"] & LOCK)

    def write_KEYR(self, value: int) -> None:
        """Two keys in order unlock CR."""
        if self._locked_out or value != _KEYS[self._keys_seen]:
            self._locked_out = True
            return
        self._keys_seen += 1
        if self._keys_seen == len(_KEYS):
            self._keys_seen = 0
            self.values["CR"] &= ~LOCK

    def write_SR(self, value: int) -> None:
        """Writing ones clears."""
        self.values["SR"] &= ~value
