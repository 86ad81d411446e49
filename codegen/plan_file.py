"""A tuned plan as a file: what `hil tune` chose for each layer of one model on one board.

The file is JSON and comes from outside: whatever it holds, it gives a `TunedPlan` or PlanRefused.
Only names of registered kernels and of the graph's own layers get any further than this module.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from codegen.errors import PlanRefused
from codegen.ir import Graph, Op
from codegen.kernels import Kernel, candidates
from codegen.names import shown
from codegen.patching import MAX_STRIPED_OPS, WHOLE, Strips, in_strips, stage_height, stage_limit
from codegen.placement import MEMORIES, Memory
from codegen.sharing import signature

SCHEMA = 1
MAX_BYTES = 4 << 20  # a plan of 2,048 layers is a tenth of this

#: Compiler flags by what they are for; engine `tiny` says which they are on a core.
FlagSet = Literal["fast", "aligned", "rescheduled", "lean", "small"]
FLAG_SETS: tuple[str, ...] = get_args(FlagSet)
#: What a plan can be chosen for.
TunedFor = Literal["latency", "sram", "flash", "energy"]
TUNED_FOR: tuple[str, ...] = get_args(TunedFor)

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TOP_KEYS = (
    *("schema", "model", "board", "objective", "flags", "strips", "layers", "measured", "tools"),
)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The choice for one layer, or for several that are equal (codegen/sharing.py).

    `name` is that of one of their ops after the passes, in strips if there are any; `weights` is
    where its constants lie.
    """

    name: str
    kernel: str
    weights: Memory = "flash"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedPlan:
    """A network's choices.

    Args:
        model_name: what the user called the model; for messages.
        model_sha256: of the .tflite that the plan is for.
        board: id of the board that it was measured on.
        objective: what the choice was made for.
        flags: which of the engine's compiler flags.
        layers: one entry for each op that has a kernel, or several equal ones, in any order.
        strips: which of the first ops run in strips.
        measured: what the network with this plan took; JSON values, for readers only.
        tools: versions of what measured it; JSON values, for readers only.
    """

    model_name: str
    model_sha256: str
    board: str
    objective: TunedFor
    flags: FlagSet
    layers: tuple[LayerPlan, ...]
    strips: Strips = WHOLE
    measured: dict[str, Any] = field(default_factory=dict, hash=False)
    tools: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def sha256(self) -> str:
        """Digest of all that changes the generated C or how it is compiled."""
        layers = sorted((layer.name, layer.kernel, layer.weights) for layer in self.layers)
        strips = [self.strips.ops, self.strips.count]
        chosen = [SCHEMA, self.model_sha256, self.board, self.flags, strips, layers]
        return hashlib.sha256(json.dumps(chosen).encode()).hexdigest()

    def to_json(self) -> str:
        """The file's text."""
        values = {
            "schema": SCHEMA,
            "model": {"name": self.model_name, "sha256": self.model_sha256},
            "board": self.board,
            "objective": self.objective,
            "flags": self.flags,
            "strips": dataclasses.asdict(self.strips),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "measured": self.measured,
            "tools": self.tools,
        }
        return json.dumps(values, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def parse_plan(data: bytes) -> TunedPlan:
    """The plan in the bytes of a file; raises PlanRefused that says what is wrong."""
    values = _object(_json(data), "the file", _TOP_KEYS)
    if values["schema"] != SCHEMA or isinstance(values["schema"], bool):
        raise PlanRefused(
            f"schema {shown(str(values['schema']))} is not known; this version reads {SCHEMA}"
        )
    model = _object(values["model"], "'model'", ("name", "sha256"))
    sha256 = _text(model["sha256"], "'model.sha256'")
    if not _SHA256.match(sha256):
        raise PlanRefused(f"'model.sha256' is {shown(sha256)}; expected 64 hexadecimal digits")
    flags = _one_of(values["flags"], "'flags'", FLAG_SETS)
    objective = _one_of(values["objective"], "'objective'", TUNED_FOR)
    if not isinstance(values["layers"], list):
        raise PlanRefused("'layers' should be a list")
    layers = tuple(_layer(entry, number) for number, entry in enumerate(values["layers"]))
    times = Counter(layer.name for layer in layers)
    if repeated := [name for name, count in times.items() if count > 1]:
        raise PlanRefused(f"layer {shown(repeated[0])} is in it twice")
    return TunedPlan(
        model_name=_text(model["name"], "'model.name'"),
        model_sha256=sha256,
        board=_text(values["board"], "'board'"),
        objective=cast("TunedFor", objective),
        flags=cast("FlagSet", flags),
        layers=layers,
        strips=_strips(values["strips"]),
        measured=_object(values["measured"], "'measured'"),
        tools=_object(values["tools"], "'tools'"),
    )


def require_for(plan: TunedPlan, model_sha256: str, board: str) -> None:
    """Raises PlanRefused unless the plan is for this model and board."""
    if plan.model_sha256 != model_sha256:
        raise PlanRefused(
            f"it is for model {shown(plan.model_name)} with SHA-256 {plan.model_sha256[:12]}..., "
            f"not for this one ({model_sha256[:12]}...)"
        )
    if plan.board != board:
        raise PlanRefused(f"it is for board {shown(plan.board)}, not for {board}")


def graph_of(plan: TunedPlan, graph: Graph) -> Graph:
    """The graph of the plan's model, after the passes, in the plan's strips.

    Raises:
        PlanRefused: the graph has no such strips.
    """
    ops, count = plan.strips.ops, plan.strips.count
    if plan.strips == WHOLE:
        return graph
    is_bounded = ops * count <= MAX_STRIPED_OPS
    if is_bounded and ops <= stage_limit(graph) and count <= stage_height(graph, ops):
        striped = in_strips(graph, ops, count)
        if striped is not None:
            return striped
    raise PlanRefused(
        f"the first {ops} ops of the model cannot run in {count} strips; run hil tune again"
    )


def choices_of(
    plan: TunedPlan, graph: Graph, ops: Iterable[tuple[int, Op]]
) -> dict[int, tuple[Kernel, Memory]]:
    """The kernel of each op, and where its constants lie, by the op's index.

    Args:
        plan: for this graph's model.
        graph: after the passes, in the plan's strips.
        ops: those that need a kernel, with their indices.

    Raises:
        PlanRefused: a layer is missing or unknown, or a kernel does not exist or cannot run it.
    """
    equal: dict[Hashable, list[int]] = {}
    for index, op in ops:
        equal.setdefault(signature(graph, op), []).append(index)
    wanted = {layer.name: layer for layer in plan.layers}
    choices: dict[int, tuple[Kernel, Memory]] = {}
    for indices in equal.values():
        first = graph.ops[indices[0]]
        found = [wanted.pop(name) for i in indices if (name := graph.ops[i].name) in wanted]
        if len(found) != 1:
            times = "nothing" if not found else "more than one thing"
            raise PlanRefused(f"it says {times} of layer {first.name!r}; run hil tune again")
        able = {kernel.name: kernel for kernel in candidates(graph, first)}
        kernel = able.get(found[0].kernel)
        if kernel is None:
            raise PlanRefused(
                f"no kernel {shown(found[0].kernel)} runs layer {first.name!r}; run hil tune "
                f"again, or take one of {', '.join(sorted(able))}"
            )
        choices.update(dict.fromkeys(indices, (kernel, found[0].weights)))
    if wanted:
        raise PlanRefused(f"the model has no layer {shown(next(iter(wanted)))}; run hil tune again")
    return choices


def _json(data: bytes) -> Any:
    if len(data) > MAX_BYTES:
        raise PlanRefused(f"it has {len(data):,} B; no plan has more than {MAX_BYTES:,} B")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise PlanRefused("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise PlanRefused("it is no UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise PlanRefused(
            f"it is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except ValueError:  # a number of more digits than Python converts
        raise PlanRefused("it holds a number that is none") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise PlanRefused("an object in it has a key twice")
    return values


def _refuse(constant: str) -> Any:
    raise PlanRefused(f"{constant} is no number of JSON")


def _object(value: Any, what: str, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """A JSON object, with exactly these keys if given."""
    if not isinstance(value, dict):
        raise PlanRefused(f"{what} should be an object")
    for key in keys or ():
        if key not in value:
            raise PlanRefused(f"{what} has no key {key!r}")
    for key in value if keys else ():
        if key not in (keys or ()):
            raise PlanRefused(f"{what} has an unknown key {shown(key)}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise PlanRefused(f"{what} should be a string")
    return value


def _one_of(value: Any, what: str, known: tuple[str, ...]) -> str:
    text = _text(value, what)
    if text not in known:
        raise PlanRefused(f"{what} is {shown(text)}; known are {', '.join(known)}")
    return text


def _layer(entry: Any, number: int) -> LayerPlan:
    what = f"layer {number}"
    values = _object(entry, what, ("name", "kernel", "weights"))
    weights = _one_of(values["weights"], f"'weights' of {what}", MEMORIES)
    return LayerPlan(
        _text(values["name"], f"'name' of {what}"),
        _text(values["kernel"], f"'kernel' of {what}"),
        cast("Memory", weights),
    )


def _strips(value: Any) -> Strips:
    values = _object(value, "'strips'", ("ops", "count"))
    ops, count = values["ops"], values["count"]
    for number in (ops, count):
        if not isinstance(number, int) or isinstance(number, bool) or number > MAX_STRIPED_OPS:
            raise PlanRefused("'strips' should hold two small numbers")
    if (ops, count) != (0, 1) and (ops < 1 or count < 2):
        raise PlanRefused("'strips' should be 0 ops in 1 strip, or at least 1 op in 2 strips")
    return Strips(ops, count)
