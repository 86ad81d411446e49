"""`hil boards` and `hil lab`: what there is, what is plugged in, whether it works, who has it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hil.console import print_json, printable, say, split_names, status_line, stdout_console
from hil.errors import UsageError

if TYPE_CHECKING:
    from hil.health import Ledger, Quarantine
    from hil.lab import Lab
    from hil.lab_check import Check
    from hil.lab_scan import Scan
    from hil.locks import Holder

lab = typer.Typer(
    name="lab",
    help="The places of lab.toml: find what is plugged in, prove it, see how it has fared.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


def boards(as_json: JsonOption = False) -> None:
    """Boards and places, what is attached, and who uses what since when."""
    from hil.board import board_ids, get_board
    from hil.health import Ledger, ledger_path
    from hil.lab import read_lab
    from hil.locks import holders
    from hil.ports import attached_ports

    lab = read_lab()
    known = [get_board(board) for board in board_ids()]
    quarantines: dict[str, Quarantine] = {}
    if ledger_path().exists():
        with Ledger() as ledger:
            quarantines = ledger.quarantines()
    places = _places(lab, quarantines)
    ports = attached_ports()
    in_use = holders()
    if as_json:
        print_json(
            {
                "boards": [
                    {
                        "id": board.id,
                        "name": board.name,
                        "mcu": board.mcu.part,
                        "core": board.mcu.core,
                        "clock_hz": board.mcu.clock_hz,
                        "flash_bytes": board.flash_bytes,
                        "ram_bytes": board.ram_bytes,
                    }
                    for board in known
                ],
                "places": places,
                "in_use": [_holder(holder) for holder in in_use],
                "attached": [
                    {"port": p.path, "boards": p.boards, "serial_number": p.serial_number}
                    for p in ports
                ],
            }
        )
        return
    typer.echo("boards")
    for board in known:
        typer.echo(
            f"  {board.id:<20} {board.name:<24} {board.mcu.part}, {board.mcu.core}, "
            f"{board.mcu.clock_hz // 1_000_000} MHz, flash {board.flash_bytes:,} B, "
            f"RAM {board.ram_bytes:,} B"
        )
    typer.echo("places")
    for place in places:
        port = f", {place['port']}" if place["port"] else ""
        missing = "" if place["attached"] else ", not plugged in"
        tags = f", tags {' '.join(place['tags'])}" if place["tags"] else ""
        _line(f"  {place['place']:<28} {place['board']} ({place['source']}{port}{missing}{tags})")
        if place["quarantine"]:
            since, reason = place["quarantine"]["since"], place["quarantine"]["reason"]
            _line(f"    in quarantine since {since}: {reason}; hil lab release {place['place']}")
        if place["holder"]:
            _line(f"    in use by {place['holder']['text']}")
    others = [holder for holder in in_use if not any(p["place"] == holder.place for p in places)]
    anonymous = [holder for holder in in_use if holder.place.startswith("virtual:")]
    for holder in dict.fromkeys([*anonymous, *others]):
        _line(f"  {holder.place or 'a place':<28} in use by {holder.text}")
    typer.echo("attached")
    for attached in ports:
        serial = f", serial number {attached.serial_number}" if attached.serial_number else ""
        found = " or ".join(attached.boards) or "no known board"
        typer.echo(f"  {attached.path:<20} {found}, {attached.text}{serial}")
    if not ports:
        typer.echo("  no board on USB")


@lab.command()
def scan(as_json: JsonOption = False) -> None:
    """Find what is plugged in, and add new boards to lab.toml."""
    from hil.lab import lab_path
    from hil.lab_scan import scan as scan_usb

    with status_line() as status:
        status("asking every port and probe")
        found = scan_usb()
    if as_json:
        print_json(found.to_json())
        return
    _show_scan(found)
    if found.added:
        say(f"{lab_path()}: added {', '.join(found.added)}; now run: hil lab check")
    elif not found.findings:
        say("nothing is plugged in; hil doctor says whether it could be seen")


@lab.command()
def check(
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLACE]...", help="Or tag:WORD.  [default: all of lab.toml]"),
    ] = None,
    load_ohm: Annotated[
        float | None,
        typer.Option(
            "--load-ohm",
            metavar="OHM",
            min=1.0,
            max=1e9,
            help="A resistor is where the board was: try the meter with it, and nothing else.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that places work, step by step; exit code 1 if anything failed."""
    from hil.lab import board_of, chosen_places, lab_path, read_lab

    lab = read_lab()
    names = chosen_places(split_names(",".join(places or []), "PLACE"), lab) if places else []
    names = names or sorted(lab.places)
    if not names:
        raise UsageError(
            f"no places in {lab_path()}: hil lab scan writes it, or name a place such as "
            "virtual:nrf52840_dk"
        )
    for name in names:
        board_of(name, lab)  # raises BoardNotFound before anything is touched
    width = max(map(len, names))
    found = []
    with status_line() as status:
        status(f"checking {', '.join(names)}")
        for step in _check_all(names, load_ohm):
            found.append(step)
            if not as_json:
                _show_check(step, width)
    failed = [step for step in found if step.state == "failed"]
    if as_json:
        print_json([step.to_json() for step in found])
    else:
        skipped = sum(step.state == "skipped" for step in found)
        say(f"{len(found) - len(failed) - skipped} ok, {len(failed)} failed, {skipped} skipped")
    if failed:
        raise typer.Exit(1)


@lab.command()
def release(
    places: Annotated[list[str], typer.Argument(metavar="PLACE...", help="Of lab.toml.")],
) -> None:
    """End the quarantine of places that somebody has looked at."""
    from hil.health import Ledger
    from hil.lab import lab_path, read_lab

    known = sorted(read_lab().places)
    for name in places:
        if name not in known:
            raise UsageError(
                f"{name!r} is no place of {lab_path()}, and only those can be in quarantine; "
                f"there are {', '.join(known) or 'none'}"
            )
    with Ledger() as ledger:
        for name in places:
            was = "is in use again" if ledger.release(name) else "was not in quarantine"
            _line(f"{name} {was}")


@lab.command()
def health(
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PLACE]...", help="Or tag:WORD.  [default: all of lab.toml]"),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", min=0, max=2000, help="Last lines of each place.")
    ] = 10,
    as_json: JsonOption = False,
) -> None:
    """What went wrong at places, what was done about it, and how worn their flash is."""
    from hil.health import Ledger
    from hil.lab import board_of, chosen_places, read_lab

    lab = read_lab()
    names = chosen_places(places, lab) if places else sorted(lab.places)
    for name in names:
        board_of(name, lab)
    with Ledger() as ledger:
        found = [_health(ledger, name, lines) for name in names]
    if as_json:
        print_json(found)
        return
    for place in found:
        _show_health(place)


def _health(ledger: Ledger, name: str, lines: int) -> dict[str, Any]:
    """What the ledger knows of a place, as it is in the JSON."""
    quarantine = ledger.quarantines().get(name)
    return {
        "place": name,
        "quarantine": asdict(quarantine) if quarantine else None,
        "failures_in_row": ledger.failures_in_row(name),
        "wear": asdict(ledger.wear(name)),
        "totals": [asdict(total) for total in ledger.totals(name)],
        "lines": [asdict(line) for line in ledger.events(name, limit=lines)] if lines else [],
    }


def _show_health(place: dict[str, Any]) -> None:
    wear, quarantine = place["wear"], place["quarantine"]
    _line(
        f"{place['place']}: {place['failures_in_row']} failures in a row; {wear['loads']:,} images "
        f"loaded, {wear['erased_sectors']:,} sectors erased, {wear['written_bytes']:,} B written"
    )
    if quarantine:
        _line(f"  in quarantine since {quarantine['since']}: {quarantine['reason']}")
    for total in place["totals"]:
        what = f"{total['event']} {total['error']}".strip()
        _line(f"  {total['count']:>6,} x {what}, last {total['last_at']}")
    for line in place["lines"]:
        what = f"{line['event']} {line['error']}".strip()
        action = f"; {line['action']}" if line["action"] else ""
        _line(f"  {line['at']}  {what}: {line['detail']}{action}")


def _places(lab: Lab, quarantines: dict[str, Quarantine]) -> list[dict[str, Any]]:
    """All places, as they are in the JSON."""
    from hil.lab import board_of, lab_path, place_names, source_of
    from hil.locks import holder_of, place_keys
    from hil.ports import is_attached

    found = []
    for name in place_names(lab):
        entry = lab.places.get(name)
        holder = holder_of(place_keys(name, entry, lab_path())) if entry else None
        quarantine = quarantines.get(name)
        source = source_of(name, lab)
        found.append(
            {
                "place": name,
                "board": board_of(name, lab).id,
                "source": source,
                "port": entry.port if entry else None,
                "attached": source == "virtual" or is_attached(entry.port if entry else None),
                "tags": list(entry.tags) if entry else [],
                "holder": _holder(holder) if holder else None,
                "quarantine": (
                    {"reason": quarantine.reason, "since": quarantine.since} if quarantine else None
                ),
            }
        )
    return found


def _holder(holder: Holder) -> dict[str, Any]:
    return {
        "place": holder.place,
        "pid": holder.pid,
        "user": holder.user,
        "host": holder.host,
        "command": holder.command,
        "since": holder.since,
        "is_running": holder.is_running,
        "text": holder.text,
    }


def _line(text: str) -> None:
    """One line on stdout, without control characters of names and records from outside."""
    typer.echo(printable(text))


def _show_scan(found: Scan) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = stdout_console()
    table = Table("found", "device", "seen", "place", "lab.toml", box=box.SIMPLE_HEAD)
    for finding in found.findings:
        row = (finding.what, finding.device, finding.seen, finding.place or "-", finding.state)
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    if found.findings:
        console.print(table)
    for finding in found.findings:
        if finding.note:
            _line(f"{finding.place or finding.device}: {finding.note}")


def _show_check(step: Check, width: int) -> None:
    took = f" ({step.seconds:.1f} s)" if step.seconds >= 0.1 else ""
    _line(f"{step.place:<{width}}  {step.state:<7}  {step.what:<12}  {step.seen}{took}")
    if step.mend:
        _line(f"{'':<{width}}           to mend: {step.mend}")


def _check_all(names: Sequence[str], load_ohm: float | None) -> Iterator[Check]:
    """Steps of all places as they are done; the places are checked at the same time."""
    from hil.lab_check import check_place

    steps: queue.SimpleQueue[Check | BaseException | None] = queue.SimpleQueue()

    def serve(name: str) -> None:
        try:
            for step in check_place(name, load_ohm=load_ohm):
                steps.put(step)
            steps.put(None)
        except BaseException as error:  # handed to the thread that reads the steps
            steps.put(error)

    # Daemons: Ctrl-C ends the process, and with it every lock, tool and virtual board.
    for name in names:
        threading.Thread(target=serve, args=(name,), name=name, daemon=True).start()
    running = len(names)
    while running:
        step = steps.get()
        if step is None:
            running -= 1
        elif isinstance(step, BaseException):
            raise step
        else:
            yield step
