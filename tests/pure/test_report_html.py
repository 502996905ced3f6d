"""The HTML report: self-contained, safe against what captures hold, private, and bounded in size."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from comparisons import EVERY, divergence
from findings import FOUND, blame
from hostile import PAYLOADS, drawn, hostile, many

from twinrun.comparison.result import Result
from twinrun.errors import TwinrunError
from twinrun.report.blame import blame_page
from twinrun.report.comparison import comparison_page
from twinrun.report.figures import safe
from twinrun.report.html import SCRIPTS, asset, document_of, page, write_report
from twinrun.report.page import Headline
from twinrun.report.payload import DIGITS, cells_text


class Seen(HTMLParser):
    """What a browser would make of the page: elements, script bodies and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.bodies: list[tuple[str, dict[str, str | None], str]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.bodies.append((*self.elements[-1], data))
        else:
            self.text += data


def rendered(result: Result, paths: bool = False, pictured: bool = False) -> str:
    return page(document_of(result, None, paths, drawn(result) if pictured else None))


def data_of(text: str) -> dict[str, object]:
    """The data block, read as the page's script reads it."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", EVERY)
def test_the_verdict_is_the_terminals(name: str) -> None:
    """Every headline of the terminal stands in the page before and without any script."""
    text = Seen(rendered(EVERY[name]())).text
    for block in comparison_page(EVERY[name]()):
        if isinstance(block, Headline):
            assert block.words in text
            assert all(part in text for part in block.parts)


def test_nothing_is_fetched() -> None:
    """No element refers to anything outside the file."""
    seen = Seen(rendered(divergence(), pictured=True))
    for tag, held in seen.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for key in ("src", "href", "action", "srcset"):
            value = held.get(key)
            assert value is None or value.startswith(("#", "data:")), (tag, key, value)
    assert not re.search(r"url\((?!data:)|@import", asset("report.css") + asset("uplot.min.css"))


def test_the_policy_names_every_script_and_style_by_its_hash() -> None:
    """Only what was written by us may run: the policy holds the hash of each script and style, and no more."""
    seen = Seen(rendered(divergence()))
    policy = next(h["content"] for t, h in seen.elements if t == "meta" and "http-equiv" in h)
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    bodies = [body for _, held, body in seen.bodies if held.get("type") != "application/json"]
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(b.encode()).digest()).decode()}'" for b in bodies}  # fmt: skip
    assert hashes == set(re.findall(r"'sha256-[^']+'", policy))
    assert not any(key.startswith("on") or key == "style" for _, held in seen.elements for key in held)  # fmt: skip


@pytest.mark.parametrize("paths", [False, True])
def test_hostile_names_stay_text(paths: bool) -> None:
    """Names, hints, commands and problems of a capture never become elements, attributes or code."""
    clean, text = Seen(rendered(divergence())), rendered(hostile(), paths)
    seen = Seen(text)
    assert {tag for tag, _ in seen.elements} <= {tag for tag, _ in clean.elements} | {"h2", "dl", "dt", "dd", "ul", "li", "p"}  # fmt: skip
    assert [t for t, _ in seen.elements].count("script") == 3
    assert not any(key.startswith("on") for _, held in seen.elements for key in held)
    held = data_of(text)
    assert {safe(name) for name in PAYLOADS} <= set(held["strings"])  # type: ignore[call-overload]
    text.encode("utf-8")  # a lone surrogate was escaped


def test_scripts_never_turn_text_into_markup() -> None:
    """The page's scripts build elements; they write no HTML and evaluate nothing."""
    code = "\n".join(asset(f"{name}.js") for name in SCRIPTS)
    for banned in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function",
                   "setTimeout(\"", "fetch(", "XMLHttpRequest", "localStorage", "import("):  # fmt: skip
        assert banned not in code, banned


def test_no_paths_or_hosts_unless_asked_for() -> None:
    """Directories, hosts and addresses of commands, problems and advice are left out, or all are shown."""
    held = divergence()
    command = (
        "/opt/py/bin/torchrun --rdzv-endpoint node-a.cluster:29500 --master_addr=10.1.2.3 "
        "--master-addr secretnode /home/jane/work/gen.py --out ../runs/x DATA=/srv/data tp=2"
    )
    side = replace(held.target, path="node-b/scratch/tp2", command=command)
    result = replace(
        held, target=side, problems=("/scratch/jane/tp2/rank0/x.json is cut (node-b/scratch/tp2)",),
        advice=("twinrun show node-b/scratch/tp2 model.layers.0.mlp.experts:output",),
        options={"noise": "/srv/runs/again, hushdir", "layouts": ""},
    )  # fmt: skip
    text = html.unescape(rendered(result))
    for secret in ("/opt", "jane", "node-a", "node-b", "10.1.2.3", "secretnode", "/srv", "scratch", "../runs", "hushdir"):  # fmt: skip
        assert secret not in text, secret
    assert "twinrun show TARGET model.layers.0.mlp.experts:output" in text
    assert "torchrun --rdzv-endpoint HOST:29500 --master_addr=HOST --master-addr HOST gen.py --out x DATA=data tp=2" in text  # fmt: skip
    assert html.escape(command) in rendered(result, paths=True)


def test_two_thousand_points_are_under_three_megabytes(tmp_path: Path) -> None:
    """The page of 2,000 points and 128 pictures of full size stays below 3 MB."""
    held = many(2000)
    size = write_report(tmp_path / "out.html", held, pictures=drawn(held))
    assert size == (tmp_path / "out.html").stat().st_size < 3_000_000
    points = data_of((tmp_path / "out.html").read_text(encoding="utf-8"))["points"]
    assert len(points) == 2000  # type: ignore[arg-type]


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A directory that is not there is an error with what to do, not a traceback."""
    with pytest.raises(TwinrunError, match="cannot be written"):
        write_report(tmp_path / "no" / "out.html", divergence())


def test_what_is_vendored_is_what_its_authors_made() -> None:
    """The chart library's files have the recorded hashes, and its licence lies beside it."""
    for name, file in json.loads(asset("vendored.json"))["files"].items():
        assert hashlib.sha256(asset(name).encode()).hexdigest() == file["sha256"], name
    assert "MIT License" in asset("uplot.LICENSE")


def test_cells_keep_no_error_and_endless_apart() -> None:
    """A cell without error is a dot, NaN or Inf a mark of its own, and larger errors are later digits."""
    text = cells_text(((0.0, 1e-30, 1e-3, 1.0, 1e9, float("inf")),))[0]
    assert text[0] == "." and text[-1] == "!"
    assert [DIGITS.index(c) for c in text[1:-1]] == sorted(DIGITS.index(c) for c in text[1:-1])
    assert DIGITS.index(text[3]) == 50  # ten decades above the lowest, five digits each


@pytest.mark.parametrize("name", FOUND)
def test_blame_leads_with_the_terminals_words(name: str) -> None:
    """Every headline and every suspect's facts of the terminal stand in blame's report, the verdict first."""
    found = FOUND[name]()
    document = document_of(found.comparison, found, False, None)
    text = Seen(page(document)).text
    for block in blame_page(found):
        if isinstance(block, Headline):
            assert block.words in text
            assert all(part in text for part in block.parts)
    assert document.sections[0].words == next(b.words for b in blame_page(found) if isinstance(b, Headline))  # fmt: skip


def test_blame_tells_each_modules_own_error_and_runs_without_paths() -> None:
    """Isolated errors stand at their points, modules and runs in lists; commands lose their directories."""
    found = blame()
    document = document_of(found.comparison, found, False, None)
    own = {dot.name: dot.isolated for dot in document.points if dot.isolated}
    assert len(own) == len(found.parts)
    apart = own["model.layers.2.self_attn:output"]
    assert apart is not None and (apart.error, apart.state) == (0.24, "differs")
    assert [one.title for one in document.lists][:2] == ["Modules", "Runs that blame made"]
    assert "jane" not in page(document) and "python gen.py" in page(document)
