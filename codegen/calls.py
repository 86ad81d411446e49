"""The calls of model_run: one after the other, or in a loop where the same functions come again.

Strips (patching.py) call the same functions again and again, each time for other rows; what differs
from time to time is in a table of offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: A loop is worth its table from this many rounds on, and looked for up to this many calls a round.
_MIN_ROUNDS = 3
_MAX_CALLS = 64


@dataclass(frozen=True, slots=True)
class Argument:
    """What a function is called with: the name of an offset in the arena, or else a constant."""

    text: str
    is_place: bool = True

    @property
    def c(self) -> str:
        """The C expression."""
        return f"at({self.text})" if self.is_place else self.text


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the function of a layer, by the layer's index."""

    symbol: str
    arguments: tuple[Argument, ...]
    layer: int

    @property
    def c(self) -> str:
        """The C expression."""
        return f"{self.symbol}({', '.join(argument.c for argument in self.arguments)})"


@dataclass(frozen=True, slots=True)
class Block:
    """Calls that come once, or a loop.

    Args:
        calls: those of one round; in a loop, what differs from round to round is `place[i]`.
        rounds: by round, the names of the offsets in `place`; empty where calls come once.
    """

    calls: tuple[Call, ...]
    rounds: tuple[tuple[str, ...], ...] = ()


def blocks(calls: Sequence[Call]) -> list[Block]:
    """The calls in the same order, with loops where that is shorter."""
    found: list[Block] = []
    single: list[Call] = []
    position = 0
    while position < len(calls):
        period, rounds = _loop_at(calls, position)
        if rounds < _MIN_ROUNDS:
            single.append(calls[position])
            position += 1
            continue
        if single:
            found.append(Block(tuple(single)))
            single = []
        end = position + period * rounds
        found.append(_loop([calls[i : i + period] for i in range(position, end, period)]))
        position = end
    return [*found, Block(tuple(single))] if single else found


def _loop_at(calls: Sequence[Call], position: int) -> tuple[int, int]:
    """Calls of a round and number of rounds of the loop from a position that takes in most."""
    symbols = [call.symbol for call in calls[position:]]
    best = 1, 1
    for period in range(1, min(_MAX_CALLS, len(symbols) // _MIN_ROUNDS) + 1):
        same = period
        while same < len(symbols) and symbols[same] == symbols[same - period]:
            same += 1
        rounds = same // period
        if rounds >= _MIN_ROUNDS and period * rounds > best[0] * best[1]:
            best = period, rounds
    return best


def _loop(rounds: Sequence[Sequence[Call]]) -> Block:
    varying: list[tuple[str, ...]] = []
    calls: list[Call] = []
    for same in zip(*rounds, strict=True):
        arguments: list[Argument] = []
        for each in zip(*(call.arguments for call in same), strict=True):
            names = tuple(argument.text for argument in each)
            if len(set(names)) == 1:
                arguments.append(each[0])
                continue
            if names not in varying:
                varying.append(names)
            arguments.append(Argument(f"place[{varying.index(names)}]"))
        calls.append(Call(same[0].symbol, tuple(arguments), same[0].layer))
    return Block(tuple(calls), tuple(zip(*varying, strict=True)))
