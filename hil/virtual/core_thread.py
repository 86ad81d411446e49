"""The thread that runs a virtual board's core, and those who start it, halt it and give it up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hil.errors import HilError
from hil.virtual.cpu import Cpu, Stop

_RETRY_S = 0.01
_NEXT_ACCESS_S = 0.002  # a program that looks at no peripheral for so long is interrupted


class CoreThread:
    """Runs one core. Whoever starts or ends a run, or touches a core at rest, holds `lock`.

    Args:
        cpu: the core.
        wake: ends a wait of the core for the host of its serial port.
    """

    def __init__(self, cpu: Cpu, wake: Callable[[], None]) -> None:
        self.cpu, self._wake = cpu, wake
        self.lock = threading.RLock()
        self.stop: Stop | None = None  # how the last run ended
        self.failure: HilError | None = None
        self._thread: threading.Thread | None = None
        self._step = False
        self._changed: set[tuple[int, int]] = set()

    @property
    def was_started(self) -> bool:
        """Whether the core ever ran."""
        return self._thread is not None

    @property
    def is_running(self) -> bool:
        """Whether a run has not ended yet."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, *, step: bool = False) -> None:
        """The core goes on where it is; for one instruction with `step`. It must be at rest."""
        assert not self.is_running, "two threads would run one core"
        for address, size_bytes in self._changed:
            self.cpu.forget_code(address, size_bytes)
        self._changed.clear()
        self.stop = self.failure = None
        self._step = step
        self.cpu.allow_run()
        self._thread = threading.Thread(target=self._run, name="core", daemon=True)
        self._thread.start()

    def give_up(self) -> None:
        """Ends a run that nobody goes on with."""
        while self._thread is not None and self._thread.is_alive():
            self.cpu.stop()  # again: one that comes just before the engine starts is lost
            self._wake()
            self._thread.join(_RETRY_S)

    def halt(self) -> None:
        """Ends a run so that `start` goes on with it: no access is lost or done twice."""
        if self._thread is None or not self._thread.is_alive():
            return
        self.cpu.request_halt()
        self._wake()
        self._thread.join(_NEXT_ACCESS_S)
        while self._thread.is_alive():
            self.cpu.interrupt()
            self._wake()
            self._thread.join(_RETRY_S)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """The core does not run in the block, and goes on behind it if it did before."""
        was_running = self.is_running
        self.halt()
        try:
            yield
        finally:
            if was_running and self.was_halted:
                self.start(step=self._step)

    @property
    def was_halted(self) -> bool:
        """Whether `halt` ended the last run, not an event in the core."""
        return self.stop is not None and self.stop.reason == "halted" and not self.stop.halt

    def code_changed(self, address: int, size_bytes: int) -> None:
        """Somebody wrote to RAM while the core ran: it sees new code there from its next start."""
        self._changed.add((address, size_bytes))

    def wait(self, timeout_s: float) -> None:
        """Returns when the run has ended, or after this time."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self.stop = self.cpu.run(step=self._step)
        except HilError as failure:
            self.failure = failure
