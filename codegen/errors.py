"""Errors of codegen; each carries its data as fields and builds its message in one place.

CodegenError
├─ UnsupportedOp   the model is sound but uses something that we do not run; names the op
├─ GraphInvalid    the model breaks a rule that every model keeps; names the rule and the place
├─ DoesNotFit      the model is sound but needs more memory than the board has
└─ PlanRefused     a tuned plan that is broken, or for something else

Text from the model is shown only after `codegen.names` made it harmless.
"""

from __future__ import annotations


class CodegenError(Exception):
    """Base of every error that a model from outside can cause; shown to the user as a sentence."""

    exit_code = 2


class UnsupportedOp(CodegenError):
    """An op, or a type, shape or attribute of it, that no kernel of ours runs.

    Args:
        op: TFLite's name of the op, such as CONV_2D.
        node: which one it is, such as "op 3 (b2_dwconv_3)".
        reason: what about it is not supported, and what is.
    """

    def __init__(self, op: str, node: str, reason: str) -> None:
        self.op, self.node, self.reason = op, node, reason
        super().__init__(f"{node}: {op} is not supported here: {reason}")


class GraphInvalid(CodegenError):
    """A model that breaks a rule of the format or of an op.

    Args:
        rule: what was seen, and what was expected.
        where: the part of the model, such as "tensor 7" or "op 3 (b2_dwconv_3)".
    """

    def __init__(self, rule: str, where: str) -> None:
        self.rule, self.where = rule, where
        super().__init__(f"{where}: {rule}")


class DoesNotFit(CodegenError):
    """A model that needs more memory than there is.

    Args:
        what: the memory, such as "RAM" or "flash", and whose.
        needed_bytes: what the model needs.
        have_bytes: what there is.
        op: the op at the peak, or the largest consumer; empty if no op is to blame.
    """

    def __init__(self, what: str, needed_bytes: int, have_bytes: int, op: str = "") -> None:
        self.what, self.op = what, op
        self.needed_bytes, self.have_bytes = needed_bytes, have_bytes
        peak = f"; the peak is at op {op!r}" if op else ""
        super().__init__(
            f"the model needs {needed_bytes:,} B of {what} but there are {have_bytes:,} B{peak}"
        )


class PlanRefused(CodegenError):
    """A plan file that is no plan, or that is for another model, board or version.

    Args:
        reason: what was seen, and what was expected.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the plan cannot be used: {reason}")
