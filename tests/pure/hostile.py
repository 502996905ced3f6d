"""A comparison whose every text tries to break out of the report, and one of many points."""

from __future__ import annotations

from dataclasses import replace

from comparisons import close, differing, divergence, result, unmatched

from twinrun.comparison.picture import Element, Heat, Histogram, Picture, Pictures, RankPicture
from twinrun.comparison.result import Divergence, Hint, Invariant, Result, Row

PAYLOADS = (
    "</script><img src=x onerror=alert(1)> <i-i>:output",
    "model.<svg onload=alert(2)>.x:output",
    '"><script>alert(3)</script>:output',
    "<!--<script>:output",
    "a\u2028b\u2029c\u202ed:output",
    "lone \ud800 surrogate:output",
    "%%DATA%%:output",
    "]]>&lt;b&gt;:output",
)


def hostile() -> Result:
    """Names, hints, notes, commands, versions, paths, problems: each holds a payload."""
    rows = [
        replace(
            differing(at, payload), notes=(payload,), inferred=payload,
            hint=Hint(payload, payload, 0.5),
        )
        for at, payload in enumerate(PAYLOADS, 1)
    ]  # fmt: skip
    held = result(
        [*rows, unmatched(len(rows) + 1, PAYLOADS[0], PAYLOADS[1])], Divergence(rows[0], 0, ()),
        advice=(f"twinrun show x '{PAYLOADS[0]}'", PAYLOADS[2]), problems=PAYLOADS,
        invariants=(Invariant("silent", "target", 0, PAYLOADS[0], (1,), PAYLOADS[2]),),
    )  # fmt: skip
    side = replace(
        held.target, command=f"python x.py --name {PAYLOADS[0]}", mesh=PAYLOADS[1], path=PAYLOADS[0],
        versions={PAYLOADS[0]: PAYLOADS[2]},
    )  # fmt: skip
    return replace(held, target=side)


def many(count: int = 2000) -> Result:
    """A run of ``count`` points of a deep model that part in the middle."""
    ports = (
        "input.hidden_states",
        "output",
        "mlp:output",
        "mlp.down_proj:output",
        "self_attn:output",
    )
    rows: list[Row] = []
    for at in range(1, count + 1):
        layer, port = divmod(at - 1, len(ports))
        name = f"model.language_model.layers.{layer}{':' if ':' not in ports[port] else '.'}{ports[port]}"
        l2 = 1e-7 * (1 + at / 100)
        rows.append(close(at, name, 0.0 if at % 7 == 0 else l2) if at < count // 2 else differing(at, name, 0.01 + at / count))  # fmt: skip
    first = rows[count // 2 - 1]
    rows[3 * count // 4] = unmatched(
        3 * count // 4 + 1, "model.visual:output", "model.vision:output"
    )
    return result(rows, Divergence(first, count // 2 - 1, (rows[count // 2 - 2],)),
                  advice=divergence().advice)  # fmt: skip


def picture(position: int, ranks: int = 2) -> Picture:
    """A picture of full size: 64 x 64 cells, ten worst elements."""
    cells = tuple(tuple(10.0 ** (-((x * 7 + y * 3) % 9)) for x in range(64)) for y in range(64))
    small = tuple(row[:24] for row in cells[:16])
    return Picture(
        position, 1 << 20, 1 << 20, Histogram(-12, 4, tuple(range(72)), 5, 0), Heat(4096, 4096, cells),
        tuple(Element((1, n, 17), -0.25 * n, 0.125, 3.5 - n / 10) for n in range(10)),
        "target", tuple(RankPicture(n, f"[:, {n}:{n + 1}]", 0.1 * n, False, Heat(16, 24, small)) for n in range(ranks)),
    )  # fmt: skip


def drawn(held: Result, count: int = 128) -> Pictures:
    """Pictures of the first ``count`` points that differ."""
    positions = [row.position for row in held.rows if row.verdict == "differs"][:count]
    return Pictures({at: picture(at) for at in positions}, {}, count)
