"""Text from a model made harmless: C identifiers for generated code, quoted text for messages.

A model's names are bytes from outside: megabytes long, not UTF-8, with quotes, newlines or comment
ends. Only what these functions return may reach C, a file name or a terminal.
"""

from __future__ import annotations

import re

MAX_IDENTIFIER = 48
_SHOWN_CHARS = 60


def c_identifier(hint: str, suffix: str) -> str:
    """A C identifier such as `conv2d_relu_t22`: the end of a name's path, then the suffix.

    The suffix makes it unique and keeps it from being a keyword, a library name or a macro (those
    are never lower case letters followed by `_t` and digits, or by `_` and digits).

    Args:
        hint: a name from the model; only its first `;` separated part counts.
        suffix: lower-case letters and digits, unique among the names of one graph.

    Returns:
        At most MAX_IDENTIFIER characters of [a-z0-9_], starting with a letter.
    """
    first = hint[:1024].split(";", 1)[0]
    parts = [
        part for part in re.split(r"[^a-z0-9]+", "/".join(first.split("/")[-2:]).lower()) if part
    ]
    text = "_".join(parts)
    if not text or text[0].isdigit():
        text = f"x_{text}" if text else "x"
    return f"{text[: MAX_IDENTIFIER - len(suffix) - 1].rstrip('_')}_{suffix}"


def graph_name(name: str) -> str:
    """A graph's name as [A-Za-z0-9_]+ that starts with a letter, at most MAX_IDENTIFIER long."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", name[:1024]).strip("_")[:MAX_IDENTIFIER]
    return text if text[:1].isalpha() else f"model_{text}"[:MAX_IDENTIFIER].rstrip("_")


def shown(name: str) -> str:
    """A name from a model for a message: quoted, escaped, ASCII and short."""
    text = name[:_SHOWN_CHARS]
    return ascii(text) + ("..." if len(name) > _SHOWN_CHARS else "")
