"""Filters: a small language over a record's name and tags; parsed, never evaluated as code.

filter  = and { "or" and }            and = not { "and" not }       not = "not" not | test
test    = "(" filter ")" | field operator value | field ["not"] "in" (value, ...) | glob
operator: == != < <= > >= ~ !~        (~ matches a glob; `*` and `?` cross dots)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from operator import eq, ge, gt, le, lt
from typing import NamedTuple

from twinrun.recorder.filter_words import Word, filter_error, split_words
from twinrun.recorder.record import Tag

Facts = Mapping[str, Tag]
Test = Callable[[Facts], bool]

_ORDER: dict[str, Callable[[Tag, Tag], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_OPERATORS = {*_ORDER, "==", "!=", "~", "!~"}
_JOINTS = {"and", "or", "not", "in"}
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter: call it with a record's facts; ``reads`` are the fields it looks at.

    ``may(facts)``: whether it could take such a record, whatever the fields outside ``LASTING`` hold.
    """

    text: str
    test: Test
    may: Test
    reads: frozenset[str]

    def __call__(self, facts: Facts) -> bool:
        return self.test(facts)


LASTING = frozenset({"name", "kind", "role", "module", "module_class", "layer", "recompute"})
"""Fields that are the same for every record of one port of one module."""


class _Node(NamedTuple):
    """A part of a filter: its test, and what it may turn out to be when only ``LASTING`` is known."""

    test: Test
    may: Test
    may_not: Test


def parse_filter(text: str) -> Filter:
    """Read a filter text; the empty text takes everything. FilterError shows where it fails."""
    if not text.strip():
        return Filter("", _always, _always, frozenset())
    return _Parser(text).filter()


class _Parser:
    def __init__(self, source: str) -> None:
        self.source = source
        self.words = split_words(source)
        self.at = 0
        self.depth = 0
        self.reads: set[str] = set()

    def filter(self) -> Filter:
        node = self._or()
        if self._word.sort != "end":
            raise self._error(f"{self._word.value!r} was not expected here")
        return Filter(self.source, node.test, node.may, frozenset(self.reads))

    @property
    def _word(self) -> Word:
        return self.words[self.at]

    def _take(self) -> Word:
        word = self.words[self.at]
        self.at += word.sort != "end"
        return word

    def _accept(self, *values: str) -> str | None:
        word = self._word
        if word.sort in ("operator", "word") and word.value in values:
            self.at += 1
            return word.value
        return None

    def _or(self) -> _Node:
        nodes = [self._and()]
        while self._accept("or"):
            nodes.append(self._and())
        if len(nodes) == 1:
            return nodes[0]
        tests, may, may_not = zip(*nodes, strict=True)
        return _Node(_any(tests), _any(may), _all(may_not))

    def _and(self) -> _Node:
        nodes = [self._not()]
        while self._accept("and"):
            nodes.append(self._not())
        if len(nodes) == 1:
            return nodes[0]
        tests, may, may_not = zip(*nodes, strict=True)
        return _Node(_all(tests), _all(may), _any(may_not))

    def _not(self) -> _Node:
        turned = False
        while self._accept("not"):
            turned = not turned
        node = self._test()
        return _Node(_turned(node.test), node.may_not, node.may) if turned else node

    def _test(self) -> _Node:
        if self._accept("("):
            self.depth += 1
            if self.depth > _DEEPEST:
                raise self._error(f"more than {_DEEPEST} parentheses inside each other")
            node = self._or()
            self._expect(")")
            self.depth -= 1
            return node
        word = self._take()
        if word.sort not in ("word", "text") or (word.sort == "word" and word.value in _JOINTS):
            self.at -= word.sort != "end"
            raise self._error("a test or a name was expected here")
        operator = self._operator() if word.sort == "word" else None
        if operator is None:
            return self._alone(word)
        self._check_field(word)
        self.reads.add(word.value)
        if operator in ("in", "not in"):
            return _leaf(_member(word.value, self._values(), operator == "in"), word.value)
        return _leaf(_compare(word.value, operator, self._value(operator)), word.value)

    def _operator(self) -> str | None:
        if self._word.value == "not" and self.words[self.at + 1].value == "in":
            self.at += 2
            return "not in"
        return self._accept(*_OPERATORS, "in")

    def _check_field(self, word: Word) -> None:
        if not re.fullmatch(r"[A-Za-z_][\w.-]*", word.value):
            raise filter_error(self.source, word.at, f"{word.value!r} is no name of a field")

    def _alone(self, word: Word) -> _Node:
        self.reads.add("name")
        matches = _glob(word.value)
        if word.sort == "text" or not word.value.isidentifier():
            return _leaf(lambda facts: matches(facts.get("name", "")), "name")
        tag = word.value
        self.reads.add(tag)
        return _leaf(
            lambda facts: facts.get(tag) is True or matches(facts.get("name", "")), "name", tag
        )

    def _values(self) -> list[Tag]:
        opening = self._accept("(", "[")
        if opening is None:
            raise self._error("a list was expected after 'in'", "for instance: layer in (0, 3)")
        closing = ")" if opening == "(" else "]"
        values = [self._value("in")]
        while self._accept(","):
            values.append(self._value("in"))
        self._expect(closing)
        return values

    def _value(self, operator: str) -> Tag:
        word = self._take()
        if word.sort == "text":
            return word.value
        if word.sort == "number":
            return _number(word.value) if operator not in ("~", "!~") else word.value
        if word.sort == "word" and word.value not in _JOINTS:
            return {"true": True, "false": False}.get(word.value.lower(), word.value)
        self.at -= word.sort != "end"
        raise self._error(f"a value was expected after {operator!r}")

    def _expect(self, value: str) -> None:
        if not self._accept(value):
            raise self._error(f"{value!r} was expected here")

    def _error(self, what: str, do: str | None = None) -> Exception:
        return filter_error(self.source, self._word.at, what, do)


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdigit() and len(text) < 40 else float(text)


def _glob(pattern: str) -> Callable[[Tag], bool]:
    match = re.compile(translate(pattern)).match
    return lambda value: match(value if isinstance(value, str) else str(value)) is not None


def _comparable(left: Tag | None, right: Tag) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    return isinstance(left, str) == isinstance(right, str)


def _compare(field: str, operator: str, value: Tag) -> Test:
    """A test of one field; a record without the field fails every test but != and !~."""
    if operator in ("~", "!~"):
        matches, wanted = _glob(str(value)), operator == "~"
        return lambda facts: (field in facts and matches(facts[field])) is wanted
    if operator in ("==", "!="):
        wanted = operator == "=="
        return lambda facts: _equal(facts.get(field), value) is wanted
    order = _ORDER[operator]
    return lambda facts: field in facts and _ordered(facts[field], value, order)


def _equal(held: Tag | None, value: Tag) -> bool:
    return held is not None and _comparable(held, value) and bool(eq(held, value))


def _ordered(held: Tag, value: Tag, order: Callable[[Tag, Tag], bool]) -> bool:
    return _comparable(held, value) and bool(order(held, value))


def _member(field: str, values: list[Tag], wanted: bool) -> Test:
    """A look-up, so that a list may name hundreds of modules."""
    texts = frozenset(v for v in values if isinstance(v, str))
    flags = frozenset(v for v in values if isinstance(v, bool))
    numbers = frozenset(v for v in values if not isinstance(v, (str, bool)))

    def test(facts: Facts) -> bool:
        held = facts.get(field)
        if isinstance(held, str):
            return (held in texts) is wanted
        if not isinstance(held, (int, float)):  # a tag may hold anything
            return not wanted
        return (held in (flags if isinstance(held, bool) else numbers)) is wanted

    return test


def _leaf(test: Test, *fields: str) -> _Node:
    if LASTING.issuperset(fields):
        return _Node(test, test, _turned(test))
    return _Node(test, _always, _always)


def _always(facts: Facts) -> bool:
    return True


def _turned(test: Test) -> Test:
    return lambda facts: not test(facts)


def _any(tests: Iterable[Test]) -> Test:
    held = tuple(tests)
    return lambda facts: any(test(facts) for test in held)


def _all(tests: Iterable[Test]) -> Test:
    held = tuple(tests)
    return lambda facts: all(test(facts) for test in held)


__all__ = ["LASTING", "Facts", "Filter", "parse_filter"]
