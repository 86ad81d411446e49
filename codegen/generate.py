"""One entry point for all engines: the bytes of a .tflite to a folder of C with its manifest."""

from __future__ import annotations

import functools
from pathlib import Path

from codegen.emit import MANIFEST_NAME, is_generated, remove_stale_sources, write_if_changed
from codegen.engines import OBJECTIVES, EngineOptions, Generated, Job, get_engine
from codegen.errors import CodegenError
from codegen.import_tflite import import_tflite
from codegen.limits import BoardLimits
from codegen.manifest import Manifest
from codegen.names import shown

#: Of which what was generated is kept, a few megabytes each: they are measured again and again.
KEPT_MODELS = 8


def generate(
    tflite: bytes,
    *,
    name: str,
    engine: str,
    board: BoardLimits,
    out_dir: Path,
    options: EngineOptions | None = None,
) -> Manifest:
    """Writes the C of one model for one engine and board; returns the manifest beside it.

    Files whose text did not change are left alone, so that builds stay incremental; sources of an
    earlier, different generation are removed. Equal arguments give equal bytes.

    Args:
        tflite: the model file, untrusted.
        name: what the user calls the model; sanitised before it reaches C.
        engine: a name of codegen.engines.
        board: memory and instructions of the board.
        out_dir: made if missing.
        options: objective and what single engines need.

    Raises:
        CodegenError: the model is broken, uses what the engine lacks, or does not fit the board; or
            a file of somebody else's would be overwritten.
    """
    options = options or EngineOptions()
    if options.objective not in OBJECTIVES:
        raise CodegenError(
            f"no objective {options.objective!r}; known objectives are {', '.join(OBJECTIVES)}"
        )
    made = generated(tflite, name, engine, board, options)
    write_generated(out_dir, made)
    return made.manifest


@functools.lru_cache(maxsize=KEPT_MODELS)
def generated(
    tflite: bytes, name: str, engine: str, board: BoardLimits, options: EngineOptions
) -> Generated:
    """What an engine makes of a model; kept for the next call with the same arguments."""
    run_engine = get_engine(engine)
    return run_engine(Job(tflite, import_tflite(tflite, name), board, options))


def write_generated(out_dir: Path, generated: Generated) -> None:
    """Writes what an engine made into a folder, as `generate` does."""
    out_dir.mkdir(parents=True, exist_ok=True)
    for path in (out_dir / name for name in [*generated.sources, MANIFEST_NAME]):
        if path.is_file() and path.stat().st_size and not is_generated(path):
            raise CodegenError(
                f"{shown(path.name)} in the folder is not ours and would be lost; use another one"
            )
    remove_stale_sources(out_dir, keep=generated.sources.keys())
    for file_name, text in generated.sources.items():
        write_if_changed(out_dir / file_name, text)
    write_if_changed(out_dir / MANIFEST_NAME, generated.manifest.to_json())
