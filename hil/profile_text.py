"""Texts that tables and listings of a profile share: source lines, shares, what was waited for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from hil.console import printable
from hil.platformio_core import ROOT
from hil.profile import Cost
from hil.profile_dwarf import Line

MAX_SOURCE_BYTES = 8 << 20
WORTH_NAMING = 0.01  # of a row's cycles: a cause below that is left out
TAB_COLUMNS = 4


class Sources:
    """Source files as the debug information names them: relative paths are the project's."""

    def __init__(self, folders: Iterable[Path] = (ROOT,)) -> None:
        self._folders = tuple(folders)

    def text(self, line: Line | None) -> str:
        """The line without its indentation; empty if there is no such file or line."""
        lines = self.lines(line.file) if line is not None else ()
        if line is None or not 0 < line.line <= len(lines):
            return ""
        return lines[line.line - 1].strip()

    def lines(self, file: str) -> tuple[str, ...]:
        """All lines of a file; none if it cannot be read."""
        for folder in self._folders:
            lines = _read(folder / file)
            if lines:
                return lines
        return ()


@lru_cache(maxsize=256)
def _read(path: Path) -> tuple[str, ...]:
    try:
        if not path.is_file() or path.stat().st_size > MAX_SOURCE_BYTES:
            return ()
        text = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # a path from a file that may hold anything
        return ()
    return tuple(printable(line.expandtabs(TAB_COLUMNS)) for line in text.splitlines())


def short_names(files: Iterable[str]) -> dict[str, str]:
    """For each path the shortest end that no other one has: its name, mostly."""
    paths = {file: Path(file).parts for file in files}
    names = {}
    for file, parts in paths.items():
        others = [other for other in paths.values() if other != parts]
        count = 1
        while count < len(parts) and any(o[-count:] == parts[-count:] for o in others):
            count += 1
        names[file] = "/".join(parts[-count:])
    return names


def share(part: float, whole: float, digits: int = 1) -> str:
    """A part in percent."""
    return f"{100 * part / whole:z.{digits}f}" if whole else "-"


def per(value: float, count: int) -> str:
    """A ratio with two digits."""
    return f"{value / count:.2f}" if count else "-"


def waits(cost: Cost, most: int = 2, least: float = WORTH_NAMING) -> str:
    """The main causes of waiting, in percent of the cost: "load-use 12, fetch 3"."""
    causes = sorted(cost.stalls.items(), key=lambda item: (-item[1], item[0]))
    named = [
        f"{cause} {share(units, cost.units, 0)}"
        for cause, units in causes[:most]
        if units >= least * cost.units > 0
    ]
    return ", ".join(named)
