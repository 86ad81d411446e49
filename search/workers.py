"""Training processes: one job at a time, with a deadline; gone whenever the study is gone."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from search.candidate import Candidate, Job, Rejected
from search.data import SearchData
from search.errors import WorkerLost

#: What a training process does with a job; it is pickled by name, so it must be a module-level
#: function.
Work = Callable[[Job, SearchData], Rejected | Candidate]

#: prctl(2): the signal that a process gets when the thread that started it ends.
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Broken:
    """A job that raised an exception in the training process."""

    kind: str
    reason: str
    traceback: str


class TrainingProcess:
    """A process that prepares candidates; started at the first job, and again after it was lost.

    One thread calls `run`; any thread may call `stop`.

    Args:
        data: sent to the process once, when it starts.
        work: what it does with a job.
    """

    def __init__(self, data: SearchData, work: Work) -> None:
        self._data, self._work = data, work
        self._process: Any = None
        self._channel: Connection | None = None
        self._lock = threading.Lock()
        self._is_stopped = False

    def run(self, job: Job, *, deadline_s: float) -> Rejected | Candidate | Broken:
        """What became of the job.

        Raises:
            WorkerLost: the process died, was stopped, or was ended because it ran past the
                deadline.
        """
        channel = self._started()
        try:
            channel.send(job)
            if not channel.poll(deadline_s):
                raise WorkerLost(f"gave no answer within {deadline_s:.0f} s and was ended")
            answer: Rejected | Candidate | Broken = channel.recv()
            return answer
        except (EOFError, OSError):
            self._process.join(timeout=5.0)
            raise WorkerLost(f"ended with exit code {self._process.exitcode}") from None
        except WorkerLost:
            self._end()
            raise

    def stop(self) -> None:
        """Ends the process, whatever it does; no other is started."""
        with self._lock:
            self._is_stopped = True
        self._end()

    def _started(self) -> Connection:
        with self._lock:
            if self._is_stopped:
                raise WorkerLost("was stopped")
            if self._process is None or not self._process.is_alive() or self._channel is None:
                context = multiprocessing.get_context("spawn")
                self._channel, childs_end = context.Pipe()
                self._process = context.Process(
                    target=_serve, args=(childs_end, self._data, self._work), daemon=True
                )
                self._process.start()
                childs_end.close()
            return self._channel

    def _end(self) -> None:
        with self._lock:
            if self._process is not None and self._process.is_alive():
                self._process.kill()
                self._process.join()


def _serve(channel: Connection, data: SearchData, work: Work) -> None:
    """The training process: jobs in, results out, until the channel closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the study decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(EOFError, OSError):  # the study is gone: nobody waits for an answer
        while True:
            job = channel.recv()
            try:
                answer: Rejected | Candidate | Broken = work(job, data)
            except Exception as error:  # becomes a failed trial, in the study's process
                answer = Broken(type(error).__name__, str(error), traceback.format_exc())
            channel.send(answer)
