"""What has a `close` and ends with a `with`."""

from __future__ import annotations

from typing import Self


class Closing:
    """Base of what is closed at the end of its `with`."""

    def close(self) -> None:
        """Gives everything back; may be called again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
