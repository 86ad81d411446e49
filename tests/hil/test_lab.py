from __future__ import annotations

import re
import textwrap

import pytest

from hil.board import BOARDS_DIR, board_ids
from hil.errors import BoardFileError, BoardNotFound, UsageError
from hil.lab import (
    Lab,
    PlaceEntry,
    board_of,
    chosen_places,
    open_place,
    place_names,
    read_lab,
    source_of,
)

PORT = "/dev/serial/by-id/usb-SEGGER_J-Link_000683-if00"
DESK_TEXT = f'[places.desk]\nboard = "nrf52840_dk"\nport = "{PORT}"\n'
TWIN_TEXT = '[places.twin]\nboard = "nrf52840_dk"\nvirtual = true\n'
DESK = Lab({"desk": PlaceEntry("nrf52840_dk", PORT, "683")})


@pytest.fixture
def lab_file(tmp_path, monkeypatch):
    path = tmp_path / "lab.toml"
    monkeypatch.setenv("HIL_LAB", str(path))
    return path


def test_without_a_lab_file_there_are_virtual_places_only(lab_file):
    lab = read_lab()

    assert lab == Lab()
    assert place_names(lab) == [f"virtual:{board}" for board in board_ids()]


def test_a_lab_file_names_physical_places_and_a_build_of_tflm(lab_file):
    lab_file.write_text(
        f'[places.desk]\nboard = "nrf52840_dk"\nport = "{PORT}"\nprobe = "683"\n'
        '[tflm]\nlibrary = "/x/lib.a"\ninclude_dirs = ["/x", "/y"]\n'
    )

    lab = read_lab()

    assert lab.places == DESK.places
    assert lab.tflm is not None
    assert lab.tflm.include_dirs == ("/x", "/y")
    assert place_names(lab)[-1] == "desk"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[places.desk]\nboard = "nrf52840_dk"\n', "places.desk.*missing key 'port'"),
        ('[places.desk]\nboard = "nrf9"\nport = "/dev/x"\n', "no board 'nrf9'; known are"),
        ('[places."a:b"]\nboard = "nrf52840_dk"\nport = "/dev/x"\n', "neither ':' nor ','"),
        ('[places." "]\nboard = "nrf52840_dk"\nport = "/dev/x"\n', "' ' is no name for a place"),
        ('[places."a\\n"]\nboard = "nrf52840_dk"\nport = "/dev/x"\n', "is no name for a place"),
        ('[places.desk]\nboard = "nrf52840_dk"\nport = ""\n', "key 'port' is empty"),
        ('[places.desk]\nboard = "nrf52840_dk"\nport = "/dev/ttyACM0"\n', "hil lab scan"),
        ('[places.desk]\nboard = "nrf52840_dk"\nport = "COM7"\n', "hil lab scan"),
        ('[places.desk]\nboard = "nrf52840_dk"\nport = "/dev/pts/4"\n', "virtual = true"),
        ('[places.desk]\nboard = "nrf52840_dk"\nport = "usb:"\n', "usb:SERIAL"),
        (DESK_TEXT + 'flash = "direct"\n', "places.desk.*'flash' is 'direct'; known methods"),
        (DESK_TEXT + 'faults = ["silence"]\n', "virtual = true"),
        (DESK_TEXT + 'tags = ["a,b"]\n', "tag 'a,b'"),
        (DESK_TEXT + "virtual = true\n", "'port' is for physical boards"),
        (DESK_TEXT + 'colour = "red"\n', "unknown key 'colour'"),
        (DESK_TEXT + 'meter = {kind = "ppk2", port = "/dev/ttyACM1"}\n', "desk.meter.*'port'"),
        (TWIN_TEXT + 'flash = "jlink"\n', "a virtual board knows direct"),
        (TWIN_TEXT + 'meter = {kind = "joulescope"}\n', "a virtual board knows ppk2"),
        ("[palces]\n", "unknown key 'palces'"),
        ("[places", "not valid TOML"),
    ],
)
def test_a_wrong_lab_file_says_where_and_what(lab_file, text, message):
    lab_file.write_text(text)

    with pytest.raises(BoardFileError, match=message):
        read_lab()


def test_a_place_has_its_board():
    assert board_of("virtual:stm32f746g_disco", DESK).id == "stm32f746g_disco"
    assert board_of("desk", DESK).id == "nrf52840_dk"


def test_a_board_is_not_a_place_and_the_message_says_where_it_is():
    with pytest.raises(UsageError, match="virtual:nrf52840_dk, desk"):
        board_of("nrf52840_dk", DESK)


def test_an_unknown_place_names_those_that_exist():
    with pytest.raises(BoardNotFound, match="virtual:nrf52840_dk"):
        board_of("virtual:z80", DESK)


def test_a_physical_place_knows_its_port_and_is_labelled_hardware(lab_file):
    lab_file.write_text(f'[places.desk]\nboard = "nrf52840_dk"\nport = "{PORT}"\n')

    with open_place("desk") as place:
        assert (place.name, place.port, place.source) == (
            "desk",
            "/dev/serial/by-id/usb-SEGGER_J-Link_000683-if00",
            "hardware",
        )
        assert place.timing_model is None
        assert place.fault() is None


def test_an_emulated_board_may_have_a_name_and_is_still_labelled_virtual(lab_file):
    lab_file.write_text(
        TWIN_TEXT + 'flash = "pyocd"\nmeter = {kind = "ppk2"}\nfaults = ["silence@2"]\n'
    )

    lab = read_lab()

    assert source_of("twin", lab) == "virtual"
    options = lab.places["twin"].options
    assert (options.flash, options.meter, options.faults) == ("pyocd", "ppk2", ("silence@2",))


def test_a_named_virtual_place_opens_as_a_virtual_board(lab_file):
    lab_file.write_text(TWIN_TEXT)

    with open_place("twin") as place:
        assert (place.name, place.source) == ("twin", "virtual")
        assert place.timing_model is not None


def test_a_tag_is_every_place_that_has_it_once():
    lab = Lab(
        {
            "b": PlaceEntry("nrf52840_dk", PORT, tags=("nightly",)),
            "a": PlaceEntry("nrf52840_dk", virtual=True, tags=("nightly", "slow")),
            "c": PlaceEntry("nrf52840_dk", virtual=True),
        }
    )

    assert chosen_places(["b", "tag:nightly"], lab) == ["b", "a"]
    with pytest.raises(UsageError, match=r"tag 'daily'; tags there are nightly, slow"):
        chosen_places(["tag:daily"], lab)


def test_a_physical_place_whose_port_leads_to_a_pseudo_terminal_is_refused(lab_file, tmp_path):
    """Whatever link hides it: an emulated board must not pass for hardware."""
    link = tmp_path / "usb-SEGGER_J-Link_000683-if00"
    link.symlink_to("/dev/pts/7")
    lab_file.write_text(f'[places.desk]\nboard = "nrf52840_dk"\nport = "{link}"\n')

    with pytest.raises(BoardFileError, match="pseudo terminal"):
        read_lab()


@pytest.mark.parametrize(
    ("name", "way", "known"),
    [
        ("virtual:nrf52840_dk", "openocd", "direct, pyocd"),
        ("desk", "direct", "jlink, openocd, pyocd"),
    ],
)
def test_a_way_of_flashing_that_a_place_does_not_know_is_refused(lab_file, name, way, known):
    lab_file.write_text(DESK_TEXT)

    with pytest.raises(UsageError, match=f"cannot be flashed by {way!r}; it knows {known}"):
        open_place(name, flash=way).__enter__()


def test_a_way_of_flashing_goes_before_that_of_lab_toml(lab_file):
    lab_file.write_text(DESK_TEXT + 'flash = "jlink"\n')

    with open_place("desk", flash="openocd") as place:
        assert place.entry.flash == "openocd"
    with open_place("desk") as place:
        assert place.entry.flash == "jlink"


@pytest.mark.parametrize("page", ["README.md", "boards/BENCH.md", "hil/lab.py"])
def test_the_examples_of_the_documentation_are_read_as_they_stand(lab_file, page):
    text = (BOARDS_DIR.parent / page).read_text()
    if page.endswith(".py"):
        first = text.index("    [places.")
        examples = [textwrap.dedent(text[first : text.index("\nNot here", first)])]
    else:
        examples = [part for part in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
        examples = [part for part in examples if part.startswith("[places.")]

    assert examples
    for example in examples:
        lab_file.write_text(example)
        assert read_lab().places


def test_a_fault_that_is_not_known_is_found_when_the_lab_is_read(lab_file):
    lab_file.write_text(
        '[places.x]\nboard = "nrf52840_dk"\nvirtual = true\nfaults = ["silense@2"]\n'
    )

    with pytest.raises(BoardFileError, match=r"\[places.x\]: fault 'silense@2'.*known are garbage"):
        read_lab()
