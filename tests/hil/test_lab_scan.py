"""What a scan makes of what is plugged in: pyserial's list and pyOCD's are scripts, ports ptys."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from links import READY, PtyBoard
from serial.tools import list_ports

from hil import lab_scan, power
from hil.child import Ended
from hil.cli import main
from hil.errors import BoardFileError, HilError
from hil.lab import read_lab
from hil.lab_scan import Probe, ask_name, list_probes, scan, write_places
from hil.locks import PlaceLock, port_key
from hil.meters import FoundMeter
from hil.power import PowerEntry

JLINK, STLINK = (0x1366, 0x1015), (0x0483, 0x374B)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Plugs scripted boards, probes and meters in; `ports` and `probes` are what is listed."""
    monkeypatch.setenv("HIL_LAB", str(tmp_path / "lab.toml"))
    monkeypatch.setattr(lab_scan, "ANSWER_S", 0.2)
    monkeypatch.setattr(lab_scan, "USB_DEVICES", tmp_path / "devices")
    table = SimpleNamespace(
        ports=[], probes=[], problem="", meters=[], lab=tmp_path / "lab.toml", boards=[], usb=None
    )
    monkeypatch.setattr(list_ports, "comports", lambda: list(table.ports))
    monkeypatch.setattr(lab_scan, "list_probes", lambda: (table.probes, table.problem))
    monkeypatch.setattr(lab_scan, "find_meters", lambda: table.meters)
    monkeypatch.setattr(lab_scan, "find_switch", lambda location: table.usb)
    table.answers = 0

    def plug(ids, serial, answer=None, location="1-1", probe_target=None):
        def reply(command):
            table.answers += 1
            return [f"m-name-dut-[{answer}]\r\n".encode(), READY] if answer else []

        board = PtyBoard(reply)
        table.boards.append(board)
        table.ports.append(
            SimpleNamespace(
                device=board.port,
                vid=ids[0],
                pid=ids[1],
                serial_number=serial,
                product="debugger",
                location=location,
            )
        )
        if probe_target:
            unique_id = serial.lstrip("0") if serial.isdecimal() else serial  # as pyOCD does
            table.probes.append(Probe(unique_id, "a probe", probe_target))

    table.plug = plug
    yield table
    for board in table.boards:
        board.vanish()


def notes(found, what="board"):
    return [finding.note for finding in found.findings if finding.what == what]


def test_a_board_that_answers_is_written_with_port_and_probe(bench):
    bench.plug(STLINK, "066DFF1", answer="stm32f746g_disco", probe_target="cortex_m")

    found = scan()

    assert found.added == {
        "stm32f746g_disco_1": {
            "board": "stm32f746g_disco",
            "port": "usb:066DFF1",
            "probe": "066DFF1",
        }
    }
    entry = read_lab().places["stm32f746g_disco_1"]
    assert (entry.port, entry.probe) == ("usb:066DFF1", "066DFF1")
    assert notes(found) == [""]


def test_a_silent_board_is_told_by_its_probe_or_by_usb_ids_that_only_one_board_has(bench):
    bench.plug(STLINK, "066DFF1", probe_target="stm32l4r5zitx")
    bench.plug(JLINK, "000683012345", probe_target="nrf52840")

    found = scan()

    assert {table["board"] for table in found.added.values()} == {"nucleo_l4r5zi", "nrf52840_dk"}
    assert found.added["nrf52840_dk_1"]["probe"] == "683012345"


def test_a_silent_board_with_a_debugger_that_several_have_is_left_to_the_user(bench):
    bench.plug(STLINK, "066DFF1", probe_target="cortex_m")

    found = scan()

    assert found.added == {}
    assert not bench.lab.exists()
    assert "may be nucleo_l4r5zi or stm32f746g_disco" in notes(found)[0]


def test_a_probe_that_pyocd_does_not_list_is_guessed_and_told(bench):
    bench.plug(JLINK, "000683012345")

    found = scan()

    assert found.added["nrf52840_dk_1"]["probe"] == "683012345"
    assert "SEGGER" in notes(found)[0]


def test_firmware_of_somebody_else_answers_with_another_name(bench):
    bench.plug(JLINK, "683", answer="unspecified", probe_target="nrf52840")

    found = scan()

    assert found.added["nrf52840_dk_1"]["board"] == "nrf52840_dk"
    assert "answers as 'unspecified'" in found.findings[0].seen


def test_a_second_scan_changes_nothing(bench):
    bench.plug(JLINK, "683", probe_target="nrf52840")
    scan()
    before = bench.lab.read_bytes()

    found = scan()

    assert found.added == {}
    assert [(f.place, f.state) for f in found.findings] == [("nrf52840_dk_1", "kept")]
    assert bench.lab.read_bytes() == before


def test_names_go_on_where_the_file_ends_and_the_users_own_text_stays(bench):
    mine = (
        "# my desk\n\n[places.nrf52840_dk_1]   # the old one\n"
        'board = "nrf52840_dk"\nport = "usb:111"\n'
        'tags   =   ["nightly"]  # odd spacing\n\n'
        '[tflm]\nlibrary = "/x.a"\ninclude_dirs = []\n'
    )
    bench.lab.write_text(mine)
    bench.lab.chmod(0o640)
    bench.plug(JLINK, "683", probe_target="nrf52840")
    bench.plug(JLINK, "684", probe_target="nrf52840")

    found = scan()

    assert list(found.added) == ["nrf52840_dk_2", "nrf52840_dk_3"]
    after = bench.lab.read_text()
    for line in mine.splitlines():
        assert line in after
    assert after.endswith("include_dirs = []\n")
    assert all(f"\n\n[{table}]" in after for table in ("tflm", "places.nrf52840_dk_3"))
    assert set(read_lab().places) == {f"nrf52840_dk_{n}" for n in (1, 2, 3)}
    assert bench.lab.stat().st_mode & 0o777 == 0o640
    assert [f.note for f in found.findings if f.what == "place"] == ["not plugged in"]
    assert sorted(path.name for path in bench.lab.parent.glob("*lab.toml*")) == ["lab.toml"]


def test_a_place_whose_port_answers_as_another_board_is_told_and_kept(bench):
    bench.lab.write_text('[places.desk]\nboard = "nucleo_l4r5zi"\nport = "usb:066DFF1"\n')
    bench.plug(STLINK, "066DFF1", answer="stm32f746g_disco")

    found = scan()

    assert (found.findings[0].place, found.added) == ("desk", {})
    assert "cables" in notes(found)[0]


def test_a_wrong_lab_file_stops_the_scan_and_is_not_touched(bench):
    bench.lab.write_text("[places")
    bench.plug(JLINK, "683")

    with pytest.raises(BoardFileError, match="not valid TOML"):
        scan()
    assert bench.lab.read_text() == "[places"


def test_strangers_are_listed_and_never_asked(bench):
    bench.plug((0x2341, 0x0043), "arduino", answer="nrf52840_dk")

    found = scan()

    assert bench.answers == 0
    assert found.added == {}
    assert "not asked" in notes(found, "port")[0]


def test_a_board_that_somebody_measures_on_is_not_asked(bench):
    bench.plug(STLINK, "066DFF1", answer="stm32f746g_disco")

    with PlaceLock([port_key("usb:066DFF1")], place="desk", wait_s=0):
        found = scan()

    assert bench.answers == 0
    assert "in use by" in found.findings[0].seen


def test_of_a_board_with_two_ports_the_one_that_answers_is_taken(bench):
    bench.plug(JLINK, "683", location="1-1.2:1.0", probe_target="nrf52840")
    bench.plug(JLINK, "683", location="1-1.2:1.2", answer="nrf52840_dk")

    found = scan()

    assert [table["port"] for table in found.added.values()] == ["usb:683:2"]


def test_a_port_without_serial_number_is_paired_with_its_probe_by_their_place_on_usb(bench):
    bench.plug(JLINK, None, location="1-1.2:1.0", answer="nrf52840_dk")
    bench.probes.append(Probe("683012345", "a probe", "nrf52840"))
    device = bench.lab.parent / "devices" / "1-1.2"
    device.mkdir(parents=True)
    (device / "serial").write_text("000683012345\n")

    found = scan()

    assert "neither serial number nor a name" in notes(found)[0]  # no udev on this machine
    assert [f for f in found.findings if f.what == "probe"] == []


def test_a_probe_without_a_port_is_told(bench):
    bench.probes.append(Probe("E661", "CMSIS-DAP", "cortex_m"))

    assert "UART" in notes(scan(), "probe")[0]


def test_what_pyocd_says_is_told(bench):
    bench.problem = "pyOCD says: no libusb"

    assert notes(scan(), "probe") == ["pyOCD says: no libusb"]


def test_a_meter_is_told_with_what_to_write_and_its_port_is_not_asked(bench):
    bench.plug((0x1915, 0xC00A), "E6B0", answer="nrf52840_dk", location="1-3:1.1")
    bench.meters.append(FoundMeter("ppk2", bench.ports[0].device, "E6B0", "PPK2"))

    found = scan()

    assert notes(found, "meter") == [
        'add to the place it is wired to: meter = {kind = "ppk2", port = "usb:E6B0"}'
    ]
    assert bench.answers == 0

    bench.lab.write_text(
        '[places.desk]\nboard = "nrf52840_dk"\nport = "usb:1"\n'
        'meter = {kind = "ppk2", port = "usb:E6B0:1"}\n'
    )
    assert [f.place for f in scan().findings if f.what == "meter"] == ["desk"]


def test_a_socket_that_uhubctl_switches_is_written_too(bench):
    bench.usb = PowerEntry("uhubctl", location="1-1", port=4)
    bench.plug(JLINK, "683", location="1-1.4:1.0")

    scan()

    entry = read_lab().places["nrf52840_dk_1"]
    assert entry.power == power.PowerEntry("uhubctl", location="1-1", port=4)


def test_the_command_shows_a_table_and_what_is_left_to_do(bench, monkeypatch, capsys):
    bench.plug(STLINK, "066DFF1", answer="stm32f746g_disco", probe_target="cortex_m")
    bench.meters.append(FoundMeter("joulescope", None, "002557", "u/js220/002557"))

    monkeypatch.setattr("sys.argv", ["hil", "lab", "scan"])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()

    assert "stm32f746g_disco_1" in out
    assert 'meter = {kind = "joulescope", serial = "002557"}' in out
    assert "added stm32f746g_disco_1; now run: hil lab check" in err
    monkeypatch.setattr("sys.argv", ["hil", "lab", "scan", "--json"])
    with pytest.raises(SystemExit):
        main()
    values = json.loads(capsys.readouterr().out)
    assert [finding["state"] for finding in values["findings"]] == ["kept", "left"]
    assert values["added"] == {}


def test_a_link_to_a_shared_file_stays_a_link(tmp_path):
    (tmp_path / "shared.toml").write_text("# ours\n")
    (tmp_path / "lab.toml").symlink_to("shared.toml")

    write_places(tmp_path / "lab.toml", {"a": {"board": "nrf52840_dk", "port": "usb:1"}})

    assert (tmp_path / "lab.toml").is_symlink()
    assert "[places.a]" in (tmp_path / "shared.toml").read_text()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(HilError, match="cannot be written"):
        write_places(tmp_path / "no" / "lab.toml", {"a": {"board": "nrf52840_dk"}})


def test_a_port_that_keeps_silent_has_no_name():
    board = PtyBoard(lambda command: [])
    try:
        assert ask_name(board.port, 115_200, timeout_s=0.2) is None
    finally:
        board.vanish()


def test_a_board_with_half_a_command_in_its_buffer_is_asked_twice():
    commands = []

    def reply(command):
        commands.append(command)
        return [b"e-[Unknown command]\r\n" if len(commands) == 1 else b"m-name-dut-[x]\r\n", READY]

    board = PtyBoard(reply)
    try:
        assert ask_name(board.port, 115_200, timeout_s=2.0) == "x"
    finally:
        board.vanish()


def test_probes_are_listed_as_pyocd_gives_them(monkeypatch):
    text = json.dumps(
        {"boards": [{"unique_id": "683", "info": "SEGGER J-Link", "target": "nrf52840"}]}
    )
    monkeypatch.setattr(lab_scan.child, "run", lambda *_, **__: Ended(0, f"a warning\n{text}", 1))

    assert list_probes() == ([Probe("683", "SEGGER J-Link", "nrf52840")], "")


@pytest.mark.parametrize("output", ["", "{", "[]", '{"boards": [{}]}', '{"boards": 3}'])
def test_a_list_of_probes_that_is_none_is_told(monkeypatch, output):
    monkeypatch.setattr(lab_scan.child, "run", lambda *_, **__: Ended(0, output, 1))

    probes, problem = list_probes()

    assert probes == []
    assert "not readable" in problem


def test_the_real_pyocd_gives_such_a_list():
    """Its own list, of this machine: maybe empty, but of the form that is read here."""
    done = subprocess.run(
        [sys.executable, "-m", "pyocd", "json", "--probes"], capture_output=True, text=True
    )
    values = json.loads(done.stdout)

    assert isinstance(values["boards"], list)
    assert list_probes()[1] == ("" if values["status"] == 0 else f"pyOCD says: {values['error']}")
