"""`hil serve`: a virtual board for other programs than this one."""

from __future__ import annotations

import json
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hil.errors import UsageError

if TYPE_CHECKING:
    from hil.virtual.place import VirtualPlace

_LOOK_S = 0.5  # how often it is looked whether the board is alive, and where its ports are


def serve(
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE", help="virtual:BOARD, with options behind '?'; hil boards lists boards."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON, and another when a port moves.")
    ] = False,
) -> None:
    """Keep a virtual board alive for pyocd, a terminal or any other program, until Ctrl-C."""
    from hil.lab import VIRTUAL, open_place, read_lab

    entry = read_lab().places.get(place)
    if not place.startswith(VIRTUAL) and entry is not None and not entry.virtual:
        raise UsageError(f"{place} is a physical board: other programs reach it without hil serve")
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with open_place(place) as board:
            board.count_clients()  # type: ignore[attr-defined]  # checked above
            shown: dict[str, Any] = {}
            while not ended.is_set():
                reached = _reached(board)  # type: ignore[arg-type]  # checked above
                if reached != shown:
                    typer.echo(json.dumps(reached) if as_json else _lines(reached, bool(shown)))
                    shown = reached
                ended.wait(_LOOK_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reached(place: VirtualPlace) -> dict[str, Any]:
    """How other programs reach the board at present."""
    ports = place.ports()
    kind, target = place.options.meter, place.board.flash.target_of("pyocd")
    probe = ports["probe"]
    return {
        "place": place.name,
        "board": place.board.id,
        "port": ports["port"],
        "baud": place.board.link.baud,
        "probe": probe,
        "meter": None if kind is None else {"kind": kind, "port": ports["meter_port"]},
        "pyocd": probe and f"pyocd load --target {target} --uid {probe} FIRMWARE.elf",
        "openocd": ports["jtag"] and _openocd(place.board.build.family, ports["jtag"]),
    }


def _openocd(family: str, address: str) -> str:
    """OpenOCD 0.12 knows JTAG only behind its remote_bitbang adapter."""
    host, port = address.split(":")
    adapter = f"remote_bitbang; remote_bitbang host {host}; remote_bitbang port {port}"
    write = "init; reset halt; flash write_image erase FIRMWARE.elf; reset run; shutdown"
    return f'openocd -c "adapter driver {adapter}" -f target/{family}x.cfg -c "{write}"'


def _lines(reached: dict[str, Any], again: bool) -> str:
    meter = reached["meter"]
    lines = [
        f"board   {reached['board']} ({reached['place']})",
        f"serial  {reached['port']}, {reached['baud']} baud",
        f"probe   {reached['probe'] or 'gone'}",
    ]
    lines += [f"meter   {meter['port']} ({meter['kind']})"] if meter else []
    lines += [f"flash   {reached[tool]}" for tool in ("pyocd", "openocd") if reached[tool]]
    lines += [] if again else ["Ctrl-C switches it off"]
    return "\n".join(lines)
