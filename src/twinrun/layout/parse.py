"""Reading a dims text: ``t[cp:zigzag,sp] (num_heads*head_dim)[tp] # ep:replicated``."""

from __future__ import annotations

import re
from functools import lru_cache

from twinrun.errors import DimsError
from twinrun.layout.dims import SQUEEZED, Dim, Dims, Modifier

LONGEST = 4096
"""Longer texts are refused: they come from files, and no tensor has that many dims."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TOKEN = re.compile(
    rf"(?P<head>{_NAME}|1(?![A-Za-z0-9_])|\([^()\[\]#]*\))?(?P<on>\[[^\[\]#]*\])?(?=\s|$)"
)
_IDENTIFIER = re.compile(_NAME)
_REPEAT = re.compile(r"repeat([1-9][0-9]{0,8})")
_ALIAS = re.compile(rf"dp:=({_NAME})")
_REPLICATED = re.compile(rf"({_NAME}):replicated")
_PACKED = re.compile(rf"({_NAME}):packed=([0-9]{{1,18}}(?:\+[0-9]{{1,18}})*)")
_QUALIFIERS = ("zigzag", "natural", "partial", "sharded")


@lru_cache(maxsize=4096)
def parse_dims(text: str) -> Dims:
    """Parse a dims text; DimsError names the word that does not fit. docs/dims.md has the grammar."""
    if len(text) > LONGEST:
        raise DimsError(f"a dims text of {len(text)} characters", expected=f"at most {LONGEST}")
    spread, _, told = text.partition("#")
    dims, pending = _parse_spread(spread, text)
    alias, replicated, packed = _parse_facts(told, text)
    parsed = Dims(tuple(dims), tuple(pending), alias, tuple(replicated), tuple(packed))
    _refuse_contradictions(parsed, text)
    return parsed


def _parse_spread(spread: str, text: str) -> tuple[list[Dim], list[str]]:
    dims: list[Dim] = []
    pending: list[str] = []
    at = 0
    while at < len(spread):
        if spread[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(spread, at)
        if match is None or match.end() == at:
            raise _bad_token(text, spread[at:].split()[0])
        if match["head"] is None:
            pending += _parse_pending(match["on"], text)
        else:
            dims.append(_parse_dim(match["head"], match["on"], text))
        at = match.end()
    return dims, pending


def _parse_dim(head: str, on: str | None, text: str) -> Dim:
    modifiers = _parse_modifiers(on, text) if on is not None else ()
    if head == SQUEEZED and any(not m.partial for m in modifiers):
        raise _error(text, f"{head}{on}", "no axis on '1': a dim of size 1 cannot be split")
    if not head.startswith("("):
        return Dim((head,), modifiers)
    names = tuple(name.strip() for name in head[1:-1].split("*"))
    if len(names) < 2 or not all(_IDENTIFIER.fullmatch(name) for name in names):
        raise _error(text, head, "at least two names joined by '*', e.g. (num_heads*head_dim)")
    return Dim(names, modifiers)


def _parse_modifiers(on: str, text: str) -> tuple[Modifier, ...]:
    return tuple(_parse_modifier(word.strip(), text) for word in on[1:-1].split(","))


def _parse_modifier(word: str, text: str) -> Modifier:
    axis, colon, told = word.partition(":")
    axis = axis.strip()
    if _IDENTIFIER.fullmatch(axis) is None:
        raise _error(
            text, word or "[]", "an axis name in the brackets, e.g. [tp] or [cp:zigzag,sp]"
        )
    qualifiers = [q.strip() for q in told.split("+")] if colon else []
    repeats = [int(match[1]) for q in qualifiers if (match := _REPEAT.fullmatch(q))]
    plain = [q for q in qualifiers if not _REPEAT.fullmatch(q)]
    for qualifier in plain:
        if qualifier not in _QUALIFIERS:
            choices = ", ".join((*_QUALIFIERS, "repeat<count>"))
            raise _error(text, word, f"a qualifier among {choices}, joined by '+'")
    clash = {"zigzag", "natural"} <= set(plain) or {"partial", "sharded"} <= set(plain)
    if clash or len(plain) != len(set(plain)) or len(repeats) > 1:
        raise _error(
            text, word, "each qualifier once, one of zigzag and natural, one of partial and sharded"
        )
    return Modifier(axis, "zigzag" in plain, "partial" in plain, *repeats)


def _parse_pending(on: str, text: str) -> list[str]:
    modifiers = _parse_modifiers(on, text)
    if any(m != Modifier(m.axis, partial=True) for m in modifiers):
        raise _error(
            text,
            on,
            "only [axis:partial] standing alone; an axis that splits a dim follows its name",
        )
    return [m.axis for m in modifiers]


_Facts = tuple[str | None, list[str], list[tuple[str, tuple[int, ...]]]]


def _parse_facts(told: str, text: str) -> _Facts:
    alias: str | None = None
    replicated: list[str] = []
    packed: list[tuple[str, tuple[int, ...]]] = []
    for word in told.split():
        if match := _ALIAS.fullmatch(word):
            if alias is not None:
                raise _error(text, word, "dp:= once")
            alias = match[1]
        elif match := _REPLICATED.fullmatch(word):
            replicated.append(match[1])
        elif match := _PACKED.fullmatch(word):
            packed.append((match[1], tuple(map(int, match[2].split("+")))))
        else:
            raise _error(
                text,
                word,
                "dp:=<axis>, <axis>:replicated or <dim>:packed=<length>+<length> after '#'",
            )
    return alias, replicated, packed


def _refuse_contradictions(dims: Dims, text: str) -> None:
    names = [name for dim in dims for name in dim.names if name != SQUEEZED]
    _refuse_repeats(names, "dim", text)
    _refuse_repeats(list(dims.named_axes), "axis", text)
    _refuse_repeats(list(dims.replicated), "replicated axis", text)
    _refuse_repeats([name for name, _ in dims.packed], "packed dim", text)
    facts = [*dims.replicated, *([dims.data_axis] if dims.data_axis else [])]
    for axis in dims.named_axes:
        if axis in facts:
            raise _error(text, axis, f"axis {axis!r} either in brackets or after '#', not both")
    if dims.data_axis in dims.replicated:
        raise _error(
            text, f"dp:={dims.data_axis}", "a data axis holds other samples, so no replicas"
        )
    whole = {dim.name for dim in dims if not dim.fused}
    for name, _ in dims.packed:
        if name not in whole:
            raise _error(text, f"{name}:packed", f"a dim named {name!r} before the '#'")


def _refuse_repeats(words: list[str], what: str, text: str) -> None:
    for word in words:
        if words.count(word) > 1:
            raise _error(text, word, f"each {what} once")


def _bad_token(text: str, word: str) -> DimsError:
    if re.fullmatch(rf"{_NAME}\(.*", word):
        return _error(
            text, word, f"axes in square brackets: {word.replace('(', '[').replace(')', ']')}"
        )
    return _error(
        text, word, "a name, '1' or (a*b), then axes in brackets, e.g. h[tp] or t[cp:zigzag,sp]"
    )


def _error(text: str, word: str, expected: str) -> DimsError:
    return DimsError(
        f"dims {text!r} do not parse at {word!r}",
        seen=word,
        expected=expected,
        do="see the grammar in docs/dims.md",
    )
