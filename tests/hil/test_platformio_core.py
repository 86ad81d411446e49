from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformio
from platformio.dependencies import get_core_dependencies
from semantic_version import SimpleSpec, Version

from hil.platformio_core import prepare_core_dir


def test_the_shim_satisfies_platformios_own_version_check(tmp_path: Path) -> None:
    package_dir = prepare_core_dir(tmp_path / "core") / "packages" / "tool-scons"

    version = json.loads((package_dir / "package.json").read_text())["version"]
    assert Version(version) in SimpleSpec(get_core_dependencies()["tool-scons"])
    assert json.loads((package_dir / ".piopm").read_text())["version"] == version
    assert "SCons" in (package_dir / "scons.py").read_text()


def test_a_prepared_folder_is_left_alone(tmp_path: Path) -> None:
    core_dir = prepare_core_dir(tmp_path / "core")
    (core_dir / "appstate.json").write_text("{}")

    prepare_core_dir(core_dir)

    assert (core_dir / "appstate.json").exists()


def test_what_another_version_left_behind_is_removed(tmp_path: Path) -> None:
    core_dir = prepare_core_dir(tmp_path / "core")
    (core_dir / "appstate.json").write_text("{}")
    (core_dir / "prepared-for").write_text("5.0.0")

    prepare_core_dir(core_dir)

    assert not (core_dir / "appstate.json").exists()
    assert (core_dir / "prepared-for").read_text() == platformio.__version__


def test_several_may_prepare_it_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: prepare_core_dir(tmp_path / "core"), range(8)))

    assert folders == {tmp_path / "core"}
    assert (tmp_path / "core" / "packages" / "tool-scons" / "scons.py").is_file()
