"""What a user of the command line sees: sentences, exit codes, and files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from graphs import Builder
from records import make_record

from codegen.export_tflite import export_tflite
from hil import cli
from hil.board import board_ids
from hil.store import Store
from search.loop import StudyResult

NRF = "virtual:nrf52840_dk"


@pytest.fixture
def hil(capfd):
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli._guarded([str(a) for a in arguments if a != "--debug"], debug=False)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def model(tmp_path):
    builder = Builder(np.random.default_rng(1), name="net")
    x = builder.input((1, 4, 4, 2))
    path = tmp_path / "net.tflite"
    path.write_bytes(export_tflite(builder.graph([builder.conv2d(x, 3, (3, 3))])))
    return path


def test_help_names_every_command(hil):
    code, out, _ = hil("--help")

    assert code == 0
    for command in [
        "demo",
        "boards",
        "bench",
        "codegen",
        "tune",
        "run",
        "flash",
        "search",
        "pareto",
        "mlperf",
        "doctor",
    ]:
        assert command in out


def test_boards_come_as_text_and_as_json(hil):
    _, text, _ = hil("boards")
    _, out, _ = hil("boards", "--json")

    assert NRF in text
    values = json.loads(out)
    assert [board["id"] for board in values["boards"]] == board_ids()
    assert values["places"][0]["source"] == "virtual"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "nonsense"),
        (["bench", "--nonsense"], "--nonsense"),
        (["bench", "none.tflite", "--board", NRF], "none.tflite does not exist"),
        (["bench", ".", "--board", NRF], "is a folder"),
        (["bench", "/dev/null", "--board", NRF], "is no regular file"),
        (["bench", "MODEL", "--board", NRF, "--json", "/tmp"], "is a folder"),
        (["bench", "MODEL", "--board", NRF, "--board", NRF], "each once"),
        (["bench", "MODEL", "--board", NRF, "--engine", "tiny", "--engine", "tiny"], "each once"),
        (["bench", "MODEL", "--board", "nrf52840_dk"], "say where: virtual:nrf52840_dk"),
        (["bench", "MODEL", "--board", "virtual:z80"], "no board or place"),
        (["bench", "MODEL", "--board", f"{NRF},"], "commas"),
        (["bench", "MODEL", "--board", NRF, "--engine", "best"], "no engine 'best'"),
        (["bench", "MODEL", "--board", NRF, "--inputs", "0"], "--inputs"),
        (["bench", "MODEL", "--board", NRF, "--json", "/no/such/x.json"], "cannot be written"),
        (["codegen", "MODEL", "--board", "z80", "--out", "x"], "no board"),
        (["codegen", "MODEL", "--board", "nrf52840_dk", "--out", "/proc/x"], "cannot be written"),
        (["run", "none.elf", "--board", NRF], "does not exist"),
        (["flash", "none.elf", "--board", NRF], "does not exist"),
        (["search"], "needs --study"),
        (["search", "--study", "s"], "needs --board"),
        (["search", "--study", "s", "--board", NRF, "--space", "wide"], "space 'wide'"),
        (["search", "none.toml"], "none.toml"),
        (["search", "--study", "../s", "--board", NRF, "--store", "STORE"], "study name"),
        (["pareto", "nothing", "--store", "STORE"], "no result store"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_code_2(hil, model, tmp_path, arguments, message):
    names = {"MODEL": model, "STORE": tmp_path / "s.sqlite"}

    code, out, err = hil(*(str(names.get(argument, argument)) for argument in arguments))

    assert code == 2
    assert message in err
    assert out == ""


def test_an_unknown_study_names_those_that_exist(hil, tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        store.open_study("other", {})

    code, _, err = hil("pareto", "nothing", "--store", tmp_path / "s.sqlite")

    assert code == 2
    assert "studies there: other" in err


def test_a_url_that_is_none_names_the_store(hil, model):
    code, _, err = hil("bench", model, "--board", NRF, "--store", "://")

    assert code == 1
    assert "result store ://" in err


def test_a_store_that_is_none_is_a_failure(hil, tmp_path):
    (tmp_path / "s.sqlite").write_bytes(b"rubbish" * 100)

    code, _, err = hil("pareto", "x", "--store", tmp_path / "s.sqlite")

    assert code == 1
    assert "not a database" in err


def test_control_characters_of_a_file_name_do_not_reach_the_terminal(hil):
    code, _, err = hil("bench", "\x1b[31mred\n.tflite", "--board", NRF)

    assert code == 2
    assert "\x1b" not in err
    assert "?[31mred?.tflite" in err


def test_codegen_writes_c_and_says_what_it_needs(hil, model, tmp_path):
    code, out, _ = hil("codegen", model, "--board", "nrf52840_dk", "--out", tmp_path / "c")

    assert code == 0
    assert "arena" in out
    assert (tmp_path / "c" / "model.c").is_file()


def test_a_model_that_is_none_is_a_users_mistake(hil, tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"hello")

    code, _, err = hil("codegen", tmp_path / "x.tflite", "--board", "nrf52840_dk", "--out", "c")

    assert code == 2
    assert "file:" in err


def test_bench_prints_a_table_writes_json_and_keeps_the_records(hil, model, tmp_path):
    code, out, err = hil(
        *("bench", model, "--board", NRF, "--inputs", "2", "--repeats", "2", "--layers"),
        *("--json", tmp_path / "r.json", "--store", tmp_path / "s.sqlite"),
    )

    assert code == 0, err
    assert "2/2" in out
    assert "CONV_2D" in out
    (record,) = json.loads((tmp_path / "r.json").read_text())
    assert record["outputs_match"] is True
    with Store(tmp_path / "s.sqlite") as store:
        assert [kept.to_json() for kept in store.records()] == [record]


def test_bench_fails_if_one_of_several_models_cannot_be_measured(hil, model, tmp_path):
    (tmp_path / "bad.tflite").write_bytes(b"hello")

    code, out, err = hil(
        *("bench", model, tmp_path / "bad.tflite", "--board", NRF, "--inputs", "1"),
        *("--json", tmp_path / "r.json", "--store", tmp_path / "s.sqlite"),
    )

    assert code == 2
    assert "net" in out
    assert "bad tiny on virtual:nrf52840_dk: file:" in err
    assert len(json.loads((tmp_path / "r.json").read_text())) == 1


def test_pareto_prints_tables_and_writes_files(hil, tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        study = store.open_study("s1", {"data": "digits", "strategy": "tpe"})
        study.add_trial(0, {}, "h", outcome={"accuracy": 0.9, "summary": "3 layers"})
        study.attach_record(0, make_record())
        study.update_trial(0, state="measured")

    code, out, _ = hil(
        *("pareto", "s1", "--store", tmp_path / "s.sqlite", "--json", tmp_path / "p.json")
    )

    assert code == 0
    assert "3 layers" in out
    assert (tmp_path / "s1" / "pareto.md").is_file()
    assert json.loads((tmp_path / "p.json").read_text())["study"] == "s1"


def test_a_study_that_measured_nothing_is_a_failure(hil, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hil.cli_search.run_study", lambda *_, **__: StudyResult({"failed": 2}, False, False)
    )

    code, out, err = hil("search", "--study", "s", "--board", NRF, "--store", tmp_path / "s.sqlite")

    assert (code, out) == (1, "")
    assert "no network of study s could be measured" in err


def test_an_unforeseen_error_is_a_sentence_that_offers_the_traceback(hil, monkeypatch):
    def broken():
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("hil.doctor.examine", broken)

    code, _, err = hil("doctor")

    assert code == 1
    assert "ZeroDivisionError: oh" in err
    assert "--debug" in err


def test_ctrl_c_is_silent(hil, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("hil.doctor.examine", interrupted)

    code, _, err = hil("doctor")

    assert (code, err) == (130, "")


def test_debug_shows_the_traceback_wherever_it_stands():
    result = subprocess.run(
        [sys.executable, "-m", "hil", "pareto", "--debug", "x", "--store", os.devnull],
        capture_output=True,
        text=True,
    )

    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_reader_that_closes_early_is_no_error():
    result = subprocess.run(
        f"{sys.executable} -m hil boards --json | head -1", shell=True, capture_output=True
    )

    assert result.stderr == b""


def test_help_is_quick():
    started = time.process_time()
    before = os.times().children_user

    subprocess.run([sys.executable, "-m", "hil", "--help"], capture_output=True, check=True)

    assert os.times().children_user - before < 0.5
    assert time.process_time() - started < 0.5


@pytest.mark.slow
def test_the_demo_searches_on_both_boards_and_prints_both_tables(hil, tmp_path):
    code, out, err = hil("demo", "--trials", "2", "--store", tmp_path / "s.sqlite")

    assert code == 0, err
    assert "nrf52840_dk (virtual" in out
    assert "stm32f746g_disco (virtual" in out
    assert (tmp_path / "demo" / "pareto.md").is_file()
    with Store(tmp_path / "s.sqlite") as store:
        trials = store.load_study("demo").trials()
    assert [trial.state for trial in trials] == ["measured"] * 2
    assert all(record.outputs_match for trial in trials for record in trial.records)
