"""PlatformIO's own folder, inside the repository: builds work offline, checkouts share nothing.

PlatformIO insists on one package of its registry, tool-scons. A shim in its place runs the SCons
that pip installed. `python -m hil.platformio_core` prepares the folder for builds by hand;
hil.build prepares it by itself.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from pathlib import Path

import platformio
from platformio.dependencies import get_core_dependencies

ROOT = Path(__file__).resolve().parents[1]
CORE_DIR = ROOT / "build" / "platformio-core"  # also core_dir in firmware/platformio.ini

_SCONS_PY = "import sys\n\nfrom SCons.Script import main\n\nsys.exit(main())\n"

_log = logging.getLogger(__name__)


def prepare_core_dir(core_dir: Path = CORE_DIR) -> Path:
    """Makes the folder ready for the installed PlatformIO; quick when it is already. Returns it.

    A folder that another version of PlatformIO left behind is removed first: PlatformIO would ask
    the network for upgrades of what is in it.
    """
    stamp = core_dir / "prepared-for"
    if _reads(stamp, platformio.__version__):
        return core_dir
    core_dir.parent.mkdir(parents=True, exist_ok=True)
    with open(core_dir.with_name(f"{core_dir.name}.lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _reads(stamp, platformio.__version__):  # another process was quicker
            return core_dir
        _log.info("preparing %s for PlatformIO %s", core_dir, platformio.__version__)
        shutil.rmtree(core_dir, ignore_errors=True)
        _write_scons_shim(core_dir / "packages" / "tool-scons")
        stamp.write_text(platformio.__version__, encoding="utf-8")
    return core_dir


def _write_scons_shim(package_dir: Path) -> None:
    """A package that satisfies PlatformIO's version check and starts the installed SCons."""
    version = get_core_dependencies()["tool-scons"].lstrip("~^=")
    spec = {"owner": "platformio", "id": None, "name": "tool-scons"}
    spec |= {"requirements": None, "uri": None}
    package_dir.mkdir(parents=True)
    (package_dir / "package.json").write_text(
        json.dumps({"name": "tool-scons", "version": version, "system": "*"}), encoding="utf-8"
    )
    # without this file PlatformIO does not know the owner and asks its registry
    (package_dir / ".piopm").write_text(
        json.dumps({"type": "tool", "name": "tool-scons", "version": version, "spec": spec}),
        encoding="utf-8",
    )
    (package_dir / "scons.py").write_text(_SCONS_PY, encoding="utf-8")


def _reads(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except OSError:
        return False


if __name__ == "__main__":
    prepare_core_dir()
