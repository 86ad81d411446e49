"""What is plugged in, as places of lab.toml: finds, asks, pairs, and writes what is new.

A port is asked for its name only when a board file knows its USB ids: others may be anything.
Which type of board it is follows, in this order, from the answer of its firmware, from its debug
probe, from its USB ids if only one board has them; otherwise nobody but the user knows. Port and
probe belong together when they have one serial number, or sit in one USB device.

What lab.toml says already stays as it is. Not here: whether a place works (lab_check).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomlkit
from serial.tools import list_ports

from hil import child
from hil.board import board_ids, get_board
from hil.errors import HilError, LinkError, PlaceBusy
from hil.lab import Lab, lab_path, read_lab
from hil.link import SerialLink, remaining
from hil.locks import PlaceLock, port_key
from hil.meters import FoundMeter, find_meters
from hil.ports import (
    USB_DEVICES,
    bare_serial,
    interface_of,
    resolve_port,
    same_serial,
    stable_name,
)
from hil.power import find_switch

ANSWER_S = 2.0  # for a port's name: firmware answers in milliseconds, unless it computes
FREE_S = 0.3  # for a port that is in use to become free: somebody may just have looked
PROBES_S = 30.0  # for pyOCD to list the probes: it opens each of them

_NAME = re.compile(rb"m-name-dut-\[([^\]\r\n]*)\]")
_HEADER = """\
# Places of this lab. `hil lab scan` adds what is newly plugged in and changes nothing else.
# What a place may hold is described at the top of hil/lab.py and in boards/BENCH.md.
"""


@dataclass(frozen=True, slots=True)
class Probe:
    """A debug probe as pyOCD lists it; `target` is what pyOCD takes its board's chip for."""

    unique_id: str
    text: str
    target: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, and what became of it.

    Attributes:
        what: "board", "meter", "probe", "port", or "place" for one of lab.toml that is not there.
        device: port or serial number, by the name that stays.
        seen: its USB ids and product; what it answered.
        place: of lab.toml that it belongs to; None if it belongs to none.
        state: added (to lab.toml), kept (as lab.toml has it), or left (to the user).
        note: why it was left, or what to look at; empty if all is well.
    """

    what: str
    device: str
    seen: str
    place: str | None
    state: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """Everything that was found, and the tables that were added to lab.toml by name of place."""

    findings: tuple[Finding, ...]
    added: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"findings": [asdict(finding) for finding in self.findings], "added": self.added}


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a port said: the name in its answer, or why there is none."""

    name: str | None
    problem: str = ""


def scan() -> Scan:
    """Finds what is plugged in and adds new boards to lab.toml.

    Raises BoardFileError when lab.toml is there and wrong, HilError when it cannot be written.
    """
    lab = read_lab()
    ports = [port for port in list_ports.comports() if port.vid is not None]
    meters = find_meters()
    of_meters = [serial for meter in meters if (serial := meter.serial)]
    candidates = {
        port.device: boards
        for port in ports
        if (boards := _candidates(port))
        and not any(same_serial(port.serial_number, serial) for serial in of_meters)
    }
    units = _units([port for port in ports if port.device in candidates])
    answers = _ask_all(units, candidates)
    probes, probes_problem = list_probes()
    findings: list[Finding] = []
    added: dict[str, dict[str, Any]] = {}
    met: set[str] = set()  # probes and places
    for unit in units:
        finding, table, probe = _look_at(unit, candidates, answers, probes, lab, set(added))
        if table is not None and finding.place is not None:
            added[finding.place] = table
        met |= {name for name in (finding.place, probe and probe.unique_id) if name}
        findings.append(finding)
    findings += _meters(meters, lab)
    findings += [_other_port(port) for port in ports if _is_strange(port, candidates, of_meters)]
    findings += _probes_alone([p for p in probes if p.unique_id not in met], lab)
    findings += _absent(lab, met)
    if probes_problem:
        findings.append(Finding("probe", "pyOCD", "", None, "left", probes_problem))
    if added:
        write_places(lab_path(), added)
    return Scan(tuple(findings), added)


def list_probes() -> tuple[list[Probe], str]:
    """Debug probes that pyOCD sees, and why there may be more; in a process that can be killed."""
    command = [sys.executable, "-m", "pyocd", "json", "--probes"]
    ended = child.run(command, timeout_s=PROBES_S)
    if problem := ended.problem():
        return [], f"listing debug probes {problem}"
    try:
        values = json.loads(ended.output[ended.output.index("{") :])
        probes = [
            Probe(board["unique_id"], board["info"], board["target"]) for board in values["boards"]
        ]
    except (ValueError, KeyError, TypeError):
        return [], f"pyOCD's list of debug probes is not readable: {ended.output[-200:]!r}"
    error = values.get("error", "")
    return probes, f"pyOCD says: {error}" if error else ""


def ask_name(path: str, baud: int, *, timeout_s: float) -> str | None:
    """What firmware with MLPerf Tiny's protocol calls itself; None when nobody answers in time.

    Raises LinkError.
    """
    deadline = time.monotonic() + timeout_s
    received = b""
    with SerialLink(path, baud) as link:
        link.discard()
        for attempt in (2, 1):  # what stood in the board's buffer spoils the first command
            link.write(b"name%")
            until = deadline - (attempt - 1) * timeout_s / 2
            while left := remaining(until):
                received += link.read(left)
                if match := _NAME.search(received):
                    return match[1].decode("utf-8", "replace")
    return None


def write_places(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds places to a lab.toml, which keeps every other byte of it; raises HilError."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else _HEADER
        document = tomlkit.parse(text)
        places: Any = document.get("places")
        if places is None:
            places = document["places"] = tomlkit.table(is_super_table=True)
        for name, values in tables.items():
            table = tomlkit.table()
            for key, value in values.items():
                table[key] = _inline(value) if isinstance(value, dict) else value
            table.add(tomlkit.nl())  # a blank line before whatever follows
            places[name] = table
        # of a link, what it leads to: the file may be shared between checkouts
        _replace(path.resolve(), tomlkit.dumps(document).rstrip() + "\n")
    except OSError as error:
        raise HilError(f"{path} cannot be written: {error.strerror}") from None


def _inline(values: Mapping[str, Any]) -> Any:
    table = tomlkit.inline_table()
    table.update(values)
    return table


def _replace(path: Path, text: str) -> None:
    """Writes a file at once or not at all, with the old one's permissions."""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


# what is plugged in


def _usb_id(port: Any) -> str:
    return f"{port.vid:04x}:{port.pid:04x}"


def _text(port: Any) -> str:
    return f"{_usb_id(port)} {port.product or ''}".strip()


def _candidates(port: Any) -> tuple[str, ...]:
    """Boards whose debuggers have the USB ids of a port."""
    usb_id = _usb_id(port)
    return tuple(board for board in board_ids() if usb_id in get_board(board).link.usb_ids)


def _units(ports: Sequence[Any]) -> list[list[Any]]:
    """Ports of one board together: of one USB device, in the order of their interfaces."""
    units: dict[str, list[Any]] = {}
    for port in ports:
        serial = port.serial_number
        units.setdefault(bare_serial(serial) if serial else _usb_device(port), []).append(port)
    return [
        sorted(unit, key=lambda port: (interface_of(port) or 0, port.device))
        for _, unit in sorted(units.items())
    ]


def _usb_device(port: Any) -> str:
    """USB location without the interface; the path of a port that has none."""
    return (port.location or "").partition(":")[0] or str(port.device)


def _ask_all(
    units: Sequence[Sequence[Any]], candidates: Mapping[str, Sequence[str]]
) -> dict[str, _Answer]:
    """Asks all boards at once, so that silent ones take ANSWER_S together; by path of port."""
    if not units:
        return {}
    with ThreadPoolExecutor(max_workers=len(units)) as pool:
        answers = pool.map(lambda unit: _ask(unit, candidates), units)
        return {path: answer for found in answers for path, answer in found.items()}


def _ask(unit: Sequence[Any], candidates: Mapping[str, Sequence[str]]) -> dict[str, _Answer]:
    """Asks the ports of one board one after the other, but not while somebody measures there."""
    device = unit[0].device
    name = stable_name(device) or device
    try:
        with PlaceLock([port_key(name)], place=name, wait_s=FREE_S):
            return {port.device: _ask_port(port, candidates[port.device]) for port in unit}
    except PlaceBusy as busy:
        return {port.device: _Answer(None, f"in use by {busy.holder}") for port in unit}


def _ask_port(port: Any, boards: Sequence[str]) -> _Answer:
    try:
        name = ask_name(port.device, get_board(boards[0]).link.baud, timeout_s=ANSWER_S)
    except LinkError as error:
        return _Answer(None, error.reason)
    return _Answer(name, "" if name is not None else "silent: no firmware of ours yet")


def _look_at(
    unit: Sequence[Any],
    candidates: Mapping[str, Sequence[str]],
    answers: Mapping[str, _Answer],
    probes: Sequence[Probe],
    lab: Lab,
    taken: set[str],
) -> tuple[Finding, dict[str, Any] | None, Probe | None]:
    """What is found of one board; with the table to add and the probe that belongs to it."""
    port = next((port for port in unit if answers[port.device].name is not None), unit[0])
    answer = answers[port.device]
    probe = _probe_of(port, probes)
    name = stable_name(port.device)
    seen = _text(port)
    if answer.name is not None:
        seen += f", answers as {answer.name!r}"
    elif answer.problem:
        seen += f", {answer.problem}"
    place = _place_of(port, name, lab)
    if place is not None:
        board = lab.places[place].board
        note = ""
        if answer.name in board_ids() and answer.name != board:
            note = f"lab.toml calls it {board}, its firmware {answer.name}: are cables mixed up?"
        return Finding("board", name or port.device, seen, place, "kept", note), None, probe
    if name is None:
        note = "has neither serial number nor a name that stays; udev's by-path names are missing"
        return Finding("board", port.device, seen, None, "left", note), None, probe
    board_id, why = _board_of(answer, candidates[port.device], probe)
    if board_id is None:
        note = f"{why}: flash it with the right firmware, or write it into lab.toml yourself"
        return Finding("board", name, seen, None, "left", note), None, probe
    table: dict[str, Any] = {"board": board_id, "port": name}
    note = why
    if probe is not None:
        table["probe"] = probe.unique_id
    elif port.serial_number:
        table["probe"] = bare_serial_of_tool(port.serial_number)
        note = _joined(
            note,
            "pyOCD does not list its probe: J-Links need SEGGER's software, others udev rules "
            "(boards/60-hil.rules)",
        )
    if (switch := find_switch(port.location or "")) is not None:
        table["power"] = {"kind": "uhubctl", "location": switch.location, "port": switch.port}
    new = _new_name(board_id, {*lab.places, *taken})
    return Finding("board", name, seen, new, "added", note), table, probe


def bare_serial_of_tool(serial: str) -> str:
    """A serial number as flashing tools want it: J-Link's without the zeros that USB shows."""
    return serial.lstrip("0") if serial.isdecimal() and serial.strip("0") else serial


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _board_of(
    answer: _Answer, candidates: Sequence[str], probe: Probe | None
) -> tuple[str | None, str]:
    """The type of a board, and what to say about it; None: it may be any of the candidates."""
    if answer.name in board_ids():
        return answer.name, ""
    if probe is not None:
        chip = probe.target.lower().rstrip("x")
        fitting = [
            board for board in candidates if get_board(board).mcu.part.lower().startswith(chip)
        ]
        if len(fitting) == 1:
            return fitting[0], ""
    if len(candidates) == 1:
        return candidates[0], "told by its USB ids alone"
    return None, f"may be {' or '.join(candidates)}, which have the same debugger"


def _probe_of(port: Any, probes: Sequence[Probe]) -> Probe | None:
    for probe in probes:
        if same_serial(probe.unique_id, port.serial_number):
            return probe
    for probe in probes:  # a debugger whose port shows no serial number
        location = _location_of(probe.unique_id)
        if location and location == _usb_device(port):
            return probe
    return None


def _location_of(serial: str) -> str | None:
    """Where on USB the device with a serial number is, as "1-1.2"."""
    for file in USB_DEVICES.glob("*/serial"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if same_serial(file.read_text(encoding="utf-8"), serial):
                return file.parent.name
    return None


def _place_of(port: Any, name: str | None, lab: Lab) -> str | None:
    """The place of lab.toml that a port belongs to, however it is written there."""
    for place, entry in lab.places.items():
        if entry.virtual or entry.port is None:
            continue
        if same_serial(entry.probe, port.serial_number):
            return place
        if name is not None and port_key(entry.port) == port_key(name):
            return place
        with contextlib.suppress(LinkError):
            if os.path.realpath(resolve_port(entry.port)) == os.path.realpath(port.device):
                return place
    return None


def _new_name(board: str, taken: set[str]) -> str:
    number = 1
    while f"{board}_{number}" in taken:
        number += 1
    return f"{board}_{number}"


def _meters(meters: Sequence[FoundMeter], lab: Lab) -> list[Finding]:
    """Nobody but the user knows which board a meter is wired to: what to write is told."""
    findings = []
    for meter in meters:
        port = stable_name(meter.port) if meter.port else None
        place = _place_of_meter(meter, port, lab)
        note = ""
        if place is None:
            where = f'port = "{port or meter.port}"' if meter.port else f'serial = "{meter.serial}"'
            note = f'add to the place it is wired to: meter = {{kind = "{meter.kind}", {where}}}'
        device = port or meter.port or meter.serial or ""
        state = "kept" if place else "left"
        findings.append(Finding("meter", device, f"{meter.kind}, {meter.text}", place, state, note))
    return findings


def _place_of_meter(meter: FoundMeter, port: str | None, lab: Lab) -> str | None:
    for place, entry in lab.places.items():
        known = entry.meter
        if known is None or entry.virtual:
            continue
        if same_serial(known.serial, meter.serial):
            return place
        if known.port and port and port_key(known.port) == port_key(port):
            return place
    return None


def _is_strange(port: Any, candidates: Mapping[str, Any], of_meters: Sequence[str]) -> bool:
    return port.device not in candidates and not any(
        same_serial(port.serial_number, serial) for serial in of_meters
    )


def _other_port(port: Any) -> Finding:
    note = "no board file has its USB ids; it was not asked"
    device = stable_name(port.device) or port.device
    return Finding("port", device, _text(port), None, "left", note)


def _probes_alone(probes: Sequence[Probe], lab: Lab) -> list[Finding]:
    findings = []
    for probe in probes:
        places = [p for p, e in lab.places.items() if same_serial(e.probe, probe.unique_id)]
        note = "" if places else "no serial port has its serial number: is the board's UART wired?"
        place = places[0] if places else None
        state = "kept" if places else "left"
        findings.append(Finding("probe", probe.unique_id, probe.text, place, state, note))
    return findings


def _absent(lab: Lab, met: set[str]) -> list[Finding]:
    return [
        Finding("place", entry.port or "", entry.board, name, "kept", "not plugged in")
        for name, entry in lab.places.items()
        if not entry.virtual and name not in met
    ]
