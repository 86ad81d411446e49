"""Which revision of this repository is running: part of every record."""

from __future__ import annotations

import functools
import subprocess

from hil.board import BOARDS_DIR


@functools.cache
def git_revision() -> str:
    """Abbreviated commit, with "-dirty" if files differ from it; "unknown" outside a checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=BOARDS_DIR.parent,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return result.stdout.strip() or "unknown"
