from __future__ import annotations

import pytest

from hil.board import board_ids
from hil.errors import BoardFileError, BoardNotFound, UsageError
from hil.lab import Lab, PlaceEntry, board_of, open_place, place_names, read_lab

DESK = Lab({"desk": PlaceEntry("nrf52840_dk", "/dev/ttyACM7", "683")})


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
        '[places.desk]\nboard = "nrf52840_dk"\nport = "/dev/ttyACM7"\nprobe = "683"\n'
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
    lab_file.write_text('[places.desk]\nboard = "nrf52840_dk"\nport = "/dev/ttyACM7"\n')

    with open_place("desk") as place:
        assert (place.name, place.port, place.source) == ("desk", "/dev/ttyACM7", "hardware")
        assert place.timing_model is None
        assert place.fault() is None
