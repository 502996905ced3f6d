"""A comparison as a page: the verdict first, then why, then what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twinrun.comparison.result import Divergence, Invariant, Result, Row, Side
from twinrun.report.figures import amount, counted, figure, ranks, size
from twinrun.report.page import Block, Field, Fields, Headline, Page, Table, Tone
from twinrun.report.point import TONES, distance, point_fields

_COUNTED = {
    "differs": "differ", "undecided": "undecided", "unmatched": "unmatched", "unreadable": "unreadable",
    "equal": "bit-identical", "close": "within rounding", "healed": "healed", "allowed": "allowed",
}  # fmt: skip

_BAD: Tone = "bad"
_WEIGHT = ("differs", "unreadable", "unmatched", "undecided")
_COLUMNS = ("verdict", "relative L2", "allowed", "hint", "step", "point")
_FIGURES = frozenset({1, 2, 4})


def comparison_page(result: Result, top: int = 10) -> Page:
    """The page of ``result``; lists show their first ``top`` entries and say how many more there are."""
    page: list[Block | None] = [*header(result), None]
    if result.invariants:
        page += [*_invariants(result.invariants, top), None]
    page += _verdict(result, top)
    last = (*_summary(result), *_next(result))
    return [*page, None, Fields(last)] if last else page


def header(result: Result) -> list[Block]:
    """Both runs, their versions, and what the reader must know of them."""
    sides = (("baseline", result.baseline), ("target", result.target))
    rows = tuple((label, *_side(side)) for label, side in sides)
    fields = [Field.of("versions", _versions(result.baseline, result.target))]
    fields += [Field.of("warning", problem, tone="unsure") for problem in _problems(result)]
    return [Table((), rows, right=frozenset({3, 4}), indent=0), Fields(tuple(fields))]


def _side(side: Side) -> tuple[str, ...]:
    mesh = f", {side.mesh}" if side.mesh else ""
    return (
        side.path,
        counted(side.ranks, "rank") + mesh,
        counted(side.records, "record"),
        size(side.nbytes),
    )


def _versions(baseline: Side, target: Side) -> str:
    told = [", ".join(f"{k} {v}" for k, v in side.versions.items()) for side in (baseline, target)]
    same = dict(baseline.versions) == dict(target.versions)
    return told[0] if same else f"baseline {told[0]}; target {told[1]}"


def _problems(result: Result) -> list[str]:
    """Every warning once, although a side's problems may be repeated in the result's own."""
    sides = (("baseline", result.baseline), ("target", result.target))
    own = [f"{label}: {problem}" for label, side in sides for problem in side.problems]
    spoken = [p for p in own if not any(p.split(": ", 1)[1] in told for told in result.problems)]
    return [*result.problems, *spoken]


def _verdict(result: Result, top: int) -> list[Block | None]:
    if not result.pairs:
        return [
            Headline("NOTHING COMPARED", ("no point is in both runs",), "bad"),
            *_rest(result, top),
        ]
    if result.first is not None:
        return _divergence(result, result.first, top)
    if result.verdict == "agree":
        headline = Headline("AGREE", (counted(len(result.rows), "point"), _tally(result)), "good")
        return [headline, *_nearest(result)]
    tone: Tone = "unsure" if result.verdict == "undecided" else "bad"
    return [
        Headline(result.verdict.upper(), ("no point differs", *_why(result)), tone),
        *_rest(result, top),
    ]


def _why(result: Result) -> list[str]:
    """What keeps two runs without a difference from agreeing, in the order of its weight."""
    told = []
    if result.invariants:
        told.append(f"{counted(len(result.invariants), 'invariant')} broken")
    for word in ("unmatched", "unreadable", "undecided"):
        if result.counts.get(word):
            told.append(f"{counted(result.counts[word], 'point')} {word}")
    return told


def _divergence(result: Result, first: Divergence, top: int) -> list[Block | None]:
    row = first.row
    where = [row.name, f"step {row.step}"]
    where += [f"occurrence {row.occurrence}"] if row.occurrence else []
    where += ["recomputed"] if row.recompute else []
    headline = Headline(
        "FIRST DIVERGENCE", (*where, f"point {row.position} of {len(result.rows)}"), "bad"
    )
    fields = [*point_fields(row), Field.of("agreed", _agreed_before(first))]
    return [headline, Fields(tuple(fields), indent=2), *_rest(result, top)]


def _agreed_before(first: Divergence) -> str:
    if not first.agreed:
        return "nothing before it"
    last = first.last_agreed[-1] if first.last_agreed else None
    told = f", the last {last.point} ({distance(last)})" if last else ""
    return f"{counted(first.agreed, 'point')} before it{told}"


def _rest(result: Result, top: int) -> list[Block | None]:
    """The other points that do not agree: by weight of the verdict, then in order of execution."""
    first = result.first.row if result.first else None
    rows = [row for row in result.rows if not row.agrees and row is not first]
    rows.sort(key=lambda row: _WEIGHT.index(row.verdict))
    shown = rows[:top]
    table = Table(
        _COLUMNS,
        tuple(_line(row) for row in shown),
        right=_FIGURES,
        tones=tuple(TONES[row.verdict] for row in shown),
    )
    return [*([None, table] if shown else []), *_left_out(len(rows), top, "point")]


def _line(row: Row) -> tuple[str, ...]:
    allowed = figure(row.floor.l2) if row.floor else ""
    where = row.name if not row.occurrence else f"{row.name}  (occurrence {row.occurrence})"
    if row.verdict == "unmatched":
        side = "baseline" if row.target is None else "target"
        near = f", nearest {row.nearest}" if row.nearest else ""
        where = f"{where}  ({side} only{near})"
    hint = row.hint.kind if row.hint else ""
    return row.verdict, distance(row), allowed, hint, str(row.step), where


def _invariants(broken: Sequence[Invariant], top: int) -> list[Block | None]:
    """The first one in full, the others as a list: most follow from the first."""
    first, others = broken[0], broken[1:]
    headline = Headline("BROKEN INVARIANT", (first.side, first.name, f"step {first.step}"), "bad")
    fields = (Field.of(first.kind, first.text, *_where(first), tone="bad"),)
    rows = tuple(
        (one.kind, figure(one.distance) if one.distance is not None else "", str(one.step), one.side,
         one.name)
        for one in others[:top]
    )  # fmt: skip
    blocks: list[Block | None] = [headline, Fields(fields, indent=2)]
    if rows:
        header = ("invariant", "largest diff", "step", "side", "point")
        blocks += [None, Table(header, rows, frozenset({1, 2}), (_BAD,) * len(rows))]
    return [*blocks, *_left_out(len(others), top, "invariant")]


def _left_out(count: int, top: int, noun: str) -> list[Block]:
    """What a list of ``count`` leaves out, and the option that shows it."""
    if count <= top:
        return []
    more = f"and {counted(count - top, f'more {noun}')} (--top {count})"
    return [Fields((Field("  " + more, ("",)),))]


def _where(broken: Invariant) -> list[str]:
    told = [ranks(broken.ranks)] if broken.ranks else []
    told += [f"largest difference {figure(broken.distance)}"] if broken.distance is not None else []
    return [", ".join(told)] if told else []


def _summary(result: Result) -> Iterable[Field]:
    if result.undecided_from is not None:
        told = (
            f"from {result.undecided_from.point} on nothing can be decided from these two runs: "
            "a second good run (--noise DIR) measures what rounding does there"
        )
        yield Field.of("undecided", told, tone="unsure")
    choices = [row for row in result.rows if row.reason == "tie" and row.is_choice]
    if choices:
        yield Field.of("ties", _tied(choices), tone="unsure")
    if result.first is not None:
        yield Field.of("what follows", _following(result, result.first))
    if result.verdict != "agree":
        yield Field.of("points", _tally(result))


def _tied(choices: Sequence[Row]) -> str:
    """Choices that fell otherwise between scores that do not differ beyond rounding."""
    others = f" and {counted(len(choices) - 1, 'more point')}" if len(choices) > 1 else ""
    return (
        f"at {choices[0].point}{others} the runs chose otherwise between scores that rounding cannot "
        "tell apart; what follows from that is undecided: a second good run (--noise DIR) shows "
        "how far it may go"
    )


def _following(result: Result, first: Divergence) -> str:
    rows = [row for row in result.rows if row.verdict == "differs" and row is not first.row]
    measured = [row for row in rows if row.measures is not None]
    if not rows:
        return "no other point differs"
    worst = max(measured, key=_size_of, default=None)
    largest = f", the largest {worst.point} ({distance(worst)})" if worst else ""
    verb = "differs" if len(rows) == 1 else "differ"
    return f"{counted(len(rows), 'more point')} {verb}{largest}"


def _size_of(row: Row) -> float:
    value = row.measures.relative_l2 if row.measures else 0.0
    return float("inf") if value != value else value


def _tally(result: Result) -> str:
    told = [
        f"{amount(n)} {text}" for word, text in _COUNTED.items() if (n := result.counts.get(word))
    ]
    return ", ".join(told)


def _nearest(result: Result) -> list[Block | None]:
    """Of two agreeing runs, the point that came nearest to what is allowed."""
    close = [row for row in result.rows if row.verdict == "close" and row.ratio is not None]
    if not close:
        return []
    row = max(close, key=lambda row: row.ratio or 0.0)
    told = f"{figure(row.ratio or 0.0)} x what is allowed, at {row.point}"
    return [Fields((Field.of("largest", told),), indent=2)]


def _next(result: Result) -> list[Field]:
    return [Field("next", result.advice, verbatim=True)] if result.advice else []
