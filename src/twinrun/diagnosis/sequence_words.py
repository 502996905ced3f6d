"""Operators in plain words: ``mul by 0.125``, ``add of attention_mask``, ``conversion to bfloat16``."""

from __future__ import annotations

from typing import Any

from twinrun.diagnosis.operator_file import Step, Tensor

_BY = frozenset({"mul", "div", "mul_", "div_", "true_divide", "floor_divide", "remainder", "pow"})
_OF = frozenset({"add", "sub", "add_", "sub_", "rsub", "maximum", "minimum"})


def plain_name(name: str) -> str:
    """An operator's name without the marks of its inner workings."""
    if "scaled_dot_product" in name:
        return "scaled_dot_product_attention"
    return name.strip("_") or name


def phrase(step: Step) -> str:
    """An operator with what makes it this one: a scalar, a parameter, a mask, a type."""
    name = plain_name(step.name)
    if step.name == "_to_copy" and "dtype" in step.arguments:
        return f"conversion to {step.arguments['dtype']}"
    word = "by" if step.name in _BY else "of" if step.name in _OF else ""
    operand = _operand(step)
    return f"{name} {word} {operand}" if word and operand else name


def origin_words(tensor: Tensor) -> str:
    """Where an input comes from; empty for a result of an operator of the same module."""
    origin = tensor.origin
    if tensor.value is not None:
        return number(tensor.value)
    if origin.startswith("child:"):
        _, child, port = origin.split(":", 2)
        return f"{child}'s {port}"
    if origin.startswith(("parameter:", "buffer:")):
        return origin.partition(":")[2]
    if origin.startswith("input."):
        return origin.removeprefix("input.")
    return ""


def number(value: Any) -> str:
    """A scalar as a person writes it; texts in quotes."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return repr(value) if isinstance(value, str) else str(value)


def _operand(step: Step) -> str:
    for name in ("other", "exponent", "value"):
        if name in step.arguments:
            return number(step.arguments[name])
    named = [words for one in reversed(step.inputs) if (words := origin_words(one))]
    return named[0] if named else ""
