from __future__ import annotations

import pytest

from hil.errors import UsageError
from hil.virtual.faults import KINDS, Faults, parse_faults
from hil.virtual.options import parse_options
from hil.virtual.serial_faults import at_other_rate


def struck(spec: str, flashings: int = 200) -> list[int]:
    """The flashings at which a fault strikes."""
    faults = Faults(parse_faults([spec]))
    at = []
    for number in range(1, flashings + 1):
        faults.begin_flashing()
        if faults.find("silence"):
            at.append(number)
    return at


def test_a_fault_strikes_at_the_first_flashing_and_is_over_at_the_next():
    assert struck("silence") == [1]
    assert struck("silence@3") == [3]
    assert struck("silence@always", 4) == [1, 2, 3, 4]


def test_nothing_is_wrong_before_the_first_flashing():
    assert Faults(parse_faults(["locked_chip@always"])).chip_locked() is False


def test_a_random_fault_strikes_as_often_as_it_should_and_always_at_the_same_flashings():
    at = struck("silence@random:0.1:7", 1000)

    assert 70 < len(at) < 130
    assert at == struck("silence@random:0.1:7", 1000)
    assert at != struck("silence@random:0.1:8", 1000)
    assert struck("silence@random:0:7") == []
    assert len(struck("silence@random:1:7")) == 200


def test_a_fault_may_last_until_the_supply_was_off(tmp_path):
    (tmp_path / "plan.toml").write_text('[[fault]]\nname = "silence"\nwhen = 2\nuntil = "power"\n')
    faults = Faults(parse_faults([str(tmp_path / "plan.toml")]))

    seen = []
    for step in ("flash", "flash", "flash", "power", "flash"):
        (faults.power_cycled if step == "power" else faults.begin_flashing)()
        seen.append(faults.find("silence") is not None)

    assert seen == [False, True, True, False, False]


def test_a_plan_sets_parameters(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(
        '[[fault]]\nname = "slow_clock"\nwhen = "always"\npercent = 20\n'
        '[[fault]]\nname = "garbage"\nrate = 1\nlines = "m-rig-run"\n'
    )

    slow, garbage = parse_faults([str(path)])

    assert (slow.flashing, slow.number("percent")) == (None, 20.0)
    assert (garbage.number("rate"), garbage.parameters["lines"]) == (1.0, "m-rig-run")
    assert garbage.parameters["direction"] == KINDS["garbage"]["direction"]


def test_a_slow_crystal_makes_every_second_longer():
    faults = Faults(parse_faults(["slow_clock"]))
    assert faults.clock_factor() == 1.0
    faults.begin_flashing()

    assert faults.clock_factor() == pytest.approx(1 / 0.9)


def test_the_supply_fails_once_in_the_middle_of_a_flashing():
    faults = Faults(parse_faults(["brown_out@always"]))
    for _ in range(2):
        faults.begin_flashing()
        assert [faults.supply_fails(1024) for _ in range(5)] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("slience", r"'slience' is not known; known are garbage, lost_bytes"),
        ("", "'' is not known"),
        ("silence@", r"when '' should be the number of a flashing"),
        ("silence@0", "when '0' should be"),
        ("silence@-1", "when '-1' should be"),
        ("silence@sometimes", "always, or random:P:SEED"),
        ("silence@random:2:1", "P from 0 to 1"),
        ("silence@random:nan:1", "P from 0 to 1"),
        ("silence@random:0.5", "random:P:SEED"),
        ("nowhere.toml", "nowhere.toml: cannot be read"),
    ],
)
def test_a_bad_fault_is_the_users_mistake(spec, says):
    with pytest.raises(UsageError, match=says):
        parse_faults([spec])
    with pytest.raises(UsageError, match=says):
        parse_options(f"fault={spec}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"it should hold \[\[fault\]\] tables"),
        ("fault = 3", "tables"),
        ("fault = [3]", "number 1: should be a table"),
        ('[[fault]]\nname = "silence"\nloud = 1', "silence has no 'loud'; it has when, until, aft"),
        ('[[fault]]\nname = "silence"\nuntil = "noon"', "known are 'flashing', 'power'"),
        ('[[fault]]\nname = "silence"\nafter_lines = 1.5', "should be an integer from 0"),
        ('[[fault]]\nname = "silence"\nafter_lines = true', "should be an integer from 0"),
        ('[[fault]]\nname = "silence"\nafter_lines = -1', "should be an integer from 0"),
        ('[[fault]]\nname = "garbage"\nrate = 1.5', "should be a number from 0 to 1"),
        ('[[fault]]\nname = "garbage"\ndirection = "up"', "one of from_board, to_board, both"),
        ('[[fault]]\nname = "silence"\nwhen = [1]', "should be the number of a flashing"),
    ],
)
def test_a_bad_plan_is_the_users_mistake(tmp_path, text, says):
    path = tmp_path / "plan.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=says):
        parse_faults([str(path)])


def test_every_fault_is_described_for_users(request):
    readme = (request.config.rootpath / "hil" / "virtual" / "README.md").read_text()

    for name, parameters in KINDS.items():
        (row,) = (line for line in readme.splitlines() if line.startswith(f"| `{name}` |"))
        for parameter, default in parameters.items():
            assert f"`{parameter}`" in row or f"`{parameter} = {default!r}`" in row, row


TEXT = b"m-timestamp-mode-performance\r\nm-init-done\r\nm-ready\r\n"


@pytest.mark.parametrize("sent", [115_200, 112_000, 118_000])
def test_rates_that_differ_by_a_little_are_read_well(sent):
    assert at_other_rate(TEXT, sent, 115_200) == TEXT


@pytest.mark.parametrize("sent", [9_600, 38_400, 57_600, 230_400])
def test_another_rate_looks_like_no_text(sent):
    read = at_other_rate(TEXT, sent, 115_200)

    assert sum(byte not in range(0x20, 0x7F) for byte in read) > len(read) / 2


def test_at_half_the_rate_every_bit_comes_twice():
    # U is 0 1010 1010 1 on the wire: a start bit, then 0 1100 1100 1 ...
    assert at_other_rate(b"U", 57_600, 115_200)[0] == 0b0110_0110
