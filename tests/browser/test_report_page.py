"""The report in a real browser: opened from disk, offline; every test fails on a console message or a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from comparisons import EVERY, divergence, undecided
from findings import FOUND, blame
from hostile import PAYLOADS, drawn, hostile, many

from twinrun.comparison.result import Result
from twinrun.report.figures import safe
from twinrun.report.html import document_of, page

Open = Callable[..., Any]
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


def text_of(result: Result) -> str:
    return page(document_of(result, None, False, drawn(result)))


def detail(shown: Any) -> str:
    """The name of the point whose detail is open."""
    return str(shown.locator("#detail h2").text_content())


def opens(shown: Any, name: str) -> bool:
    """Whether the detail of this point opens: a click changes the page's address first."""
    for _ in range(200):
        if detail(shown) == name:
            return True
        shown.wait_for_timeout(25)
    return False


def until(shown: Any, expression: str) -> None:
    """Wait until ``expression`` holds. Playwright's own way evaluates in the page, which the policy forbids."""
    for _ in range(200):
        if shown.evaluate(expression):
            return
        shown.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


@pytest.mark.parametrize("name", EVERY)
def test_every_ending_opens(name: str, opened: Open) -> None:
    """Whatever a comparison ended with, the page comes up and shows the verdict and the points."""
    shown = opened(text_of(EVERY[name]()))
    assert shown.locator("h1").count() == 1
    assert shown.locator(".words").first.is_visible()
    assert shown.locator("#app").is_visible()


@pytest.mark.parametrize("name", FOUND)
def test_every_finding_opens(name: str, opened: Open) -> None:
    """So it does for whatever blame ended with."""
    found = FOUND[name]()
    shown = opened(page(document_of(found.comparison, found, False, None)))
    assert shown.locator("h1").count() == 1
    assert shown.locator("#app").is_visible()


def test_the_modules_of_blame_lead_to_their_points(opened: Open) -> None:
    """The first card names the fault with its proof; a module's row opens the point it was measured at."""
    found = blame()
    shown = opened(page(document_of(found.comparison, found, False, None)))
    lead = shown.locator(".lead").inner_text()
    assert "model.layers.2.self_attn" in lead and "healed" in lead and "divided by 9.2" in lead
    assert "isolated" in shown.locator("#legend").inner_text()
    shown.locator("#lists a", has_text="model.layers.1.mlp:output").first.click()
    assert opens(shown, "model.layers.1.mlp:output")
    assert "adds" in shown.locator("#detail dl").inner_text()


def test_the_first_divergence_is_open(opened: Open) -> None:
    """The page opens at the first divergence: its detail is shown and its leaf is chosen in the tree."""
    shown = opened(text_of(divergence()))
    assert opens(shown, "model.layers.0.mlp.experts:output")
    chosen = shown.locator("[role=treeitem][aria-selected=true]")
    assert chosen.count() == 1 and "output" in chosen.inner_text()
    assert shown.locator("#detail figure").count() >= 2  # histogram and map
    assert shown.locator("#detail .ranks figure").count() == 2


def test_text_and_globs_filter_tree_list_and_count(opened: Open) -> None:
    """A text or glob narrows the tree, the list and the count; clearing it brings all back."""
    shown = opened(text_of(many(200)))
    shown.locator("#tab-list").click()
    assert shown.locator("#panel-list tbody tr").count() == 200
    shown.locator("#filter").fill("*.mlp.down_proj:output")
    until(shown, "document.querySelectorAll('#panel-list tbody tr').length === 40")
    assert "40 of 200" in shown.locator("#shown").inner_text()
    shown.locator("#filter").fill("LAYERS.7.")
    until(shown, "document.querySelectorAll('#panel-list tbody tr').length === 3")
    shown.locator("#tab-tree").click()
    assert shown.locator("[role=treeitem].port").count() == 3
    shown.locator("#filter").fill("nothing has this name")
    shown.wait_for_selector("#panel-tree .empty")
    shown.locator("#filter").fill("")
    until(shown, "document.querySelector('#shown').textContent === '200 points'")


def test_verdicts_filter(opened: Open) -> None:
    """A verdict's button shows its points alone, and says that it is pressed."""
    shown = opened(text_of(many(200)))
    shown.locator("#tab-list").click()
    chip = shown.locator("#verdicts button", has_text="unmatched")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "true"
    assert shown.locator("#panel-list tbody tr").count() == 1
    chip.click()
    assert shown.locator("#panel-list tbody tr").count() == 200


def test_a_click_in_the_chart_opens_the_point(opened: Open) -> None:
    """Pointing at a dot shows its name, figures and layout; a click opens its detail and its leaf."""
    shown = opened(text_of(divergence()))
    x, y = shown.evaluate(
        """() => { const over = document.querySelector('.u-over').getBoundingClientRect();
        return [over.left + over.width * (5 - 0.4) / 15.2, over.top]; }"""
    )
    height = shown.evaluate("document.querySelector('.u-over').clientHeight")
    for part in range(0, height, 6):  # down the column of point 5 until its dot is met
        shown.mouse.move(x, y + part)
        if shown.locator(".tip").is_visible():
            break
    tip = shown.locator(".tip").inner_text()
    assert "model.layers.5:output" in tip and "relative L2" in tip and "[2, 8, 128]" in tip
    shown.mouse.click(x, y + part)
    assert opens(shown, "model.layers.5:output")
    assert shown.url.endswith("#p=5")


def test_the_tree_leads_to_details(opened: Open) -> None:
    """A click on a module opens it, a click on a point its detail."""
    shown = opened(text_of(divergence()))
    shown.locator("[role=tree] .name").get_by_text("9", exact=True).click()
    module = shown.locator("[role=treeitem][aria-label^='9: ']")
    assert module.get_attribute("aria-expanded") == "true"
    module.locator(".port > .row").click()
    assert opens(shown, "model.layers.9:output")
    assert shown.locator("[role=treeitem][aria-selected=true]").count() == 1


def test_the_list_leads_to_details_and_sorts(opened: Open) -> None:
    """A row's name is a link to its detail; a heading sorts, and says how."""
    shown = opened(text_of(many(100)))
    shown.locator("#tab-list").click()
    shown.locator("th button", has_text="relative L2").click()
    assert shown.locator("th[aria-sort=descending]").inner_text().startswith("relative L2")
    first = shown.locator("#panel-list tbody tr").first
    name = first.locator("a").text_content()
    first.locator("a").click()
    until(shown, f"document.querySelector('#detail h2').textContent === {name!r}")


def test_the_keyboard_alone_reaches_every_part(opened: Open) -> None:
    """Arrows and Enter work in chart, tabs and tree; the focus is always somewhere that shows it."""
    shown = opened(text_of(many(60)))
    shown.locator("#chart").focus()
    before = detail(shown)
    shown.keyboard.press("Home")
    shown.keyboard.press("ArrowRight")
    assert shown.locator(".tip").is_visible()
    assert "model" in shown.locator("#chart-says").inner_text()
    shown.keyboard.press("Enter")
    assert detail(shown) != before
    assert shown.evaluate("document.activeElement.id") == "detail"
    shown.locator("#tab-tree").focus()
    shown.keyboard.press("ArrowRight")
    assert shown.locator("#panel-list").is_visible()
    shown.keyboard.press("ArrowLeft")
    shown.locator("[role=tree] [tabindex='0']").focus()
    shown.keyboard.press("Home")
    assert shown.evaluate("document.activeElement.getAttribute('aria-level')") == "1"
    shown.keyboard.press("ArrowLeft")
    assert shown.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false"
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("ArrowRight")
    assert shown.evaluate("document.activeElement.getAttribute('aria-level')") == "2"
    shown.keyboard.press("End")
    while shown.evaluate("document.activeElement.getAttribute('aria-expanded')") == "false":
        shown.keyboard.press("ArrowRight")
        shown.keyboard.press("ArrowRight")
    label = shown.evaluate("document.activeElement.getAttribute('aria-label')")
    shown.keyboard.press("Enter")
    assert shown.locator("#detail .badge").inner_text() in label
    assert shown.locator("[role=tree] [tabindex='0']").count() == 1


def test_tab_reaches_the_controls_in_order(opened: Open) -> None:
    """From the top, Tab goes through the skip link, the verdict, the filter, the chart, the points, the detail."""
    shown = opened(text_of(divergence()))
    order: list[str] = []
    for _ in range(30):
        shown.keyboard.press("Tab")
        order.append(shown.evaluate(
            "(e => e.closest('#chart') ? 'chart' : e.closest('#browse') ? 'browse' : e.closest('#detail') ? 'detail'"
            " : e.closest('.controls') ? 'controls' : e.closest('.opening') ? 'opening' : e.className)(document.activeElement)"
        ))  # fmt: skip
    wanted = ["skip", "opening", "controls", "chart", "browse", "detail"]
    assert [order.index(part) for part in wanted] == sorted(order.index(part) for part in wanted)


@pytest.mark.parametrize("make", [divergence, hostile, lambda: many(300)])
def test_a_phone_never_scrolls_sideways(make: Callable[[], Result], opened: Open) -> None:
    """At 360 pixels nothing is wider than the screen, whichever point or list is open."""
    shown = opened(text_of(make()), **PHONE)
    wide = "document.documentElement.scrollWidth"
    assert shown.evaluate(wide) <= 360
    shown.locator("#tab-list").click()
    assert shown.evaluate(wide) <= 360
    shown.locator("#panel-list tbody tr a").last.click()
    assert shown.evaluate(wide) <= 360


def test_hostile_names_are_shown_as_text(opened: Open) -> None:
    """Markup in names, hints, notes and commands is text on the page, runs nothing and fetches nothing."""
    shown = opened(text_of(hostile()))
    assert shown.locator("img, iframe").count() == 0
    shown.locator("#tab-list").click()
    names = shown.locator("#panel-list tbody tr a").all_text_contents()
    assert names[: len(PAYLOADS)] == [safe(name) for name in PAYLOADS]
    for at in range(len(PAYLOADS)):
        shown.locator("#panel-list tbody tr a").nth(at).click()
        until(shown, f"location.hash === '#p={at + 1}'")
        assert opens(shown, safe(PAYLOADS[at]))
    assert shown.evaluate("document.scripts.length") == 3


def test_a_policy_stops_what_should_get_in_after_all(opened: Open, browser: Any) -> None:
    """Were a script to get into the page, the policy would not run it."""
    text = text_of(divergence()).replace("</main>", "<script>window.owned = 1</script></main>")
    context = browser.new_context(offline=True)
    page_ = context.new_page()
    page_.set_content(text)
    assert page_.evaluate("window.owned") is None
    context.close()


def test_an_address_opens_its_point(opened: Open) -> None:
    """report.html#p=7 opens point 7, and going back in history does too."""
    shown = opened(text_of(divergence()))
    shown.evaluate("location.hash = '#p=7'")
    until(shown, "document.querySelector('#detail h2').textContent.includes('layers.7')")
    shown.reload()
    shown.wait_for_selector("html[data-ready]")
    assert "layers.7" in detail(shown)


def test_two_thousand_points(opened: Open) -> None:
    """A page of 2,000 points comes up whole, filters, and opens its last point."""
    shown = opened(text_of(many(2000)))
    shown.locator("#tab-list").click()
    assert shown.locator("#panel-list tbody tr").count() == 2000
    shown.locator("#chart").focus()
    shown.keyboard.press("End")
    shown.keyboard.press("Enter")
    assert "point 2,000 of 2,000" in shown.locator("#detail .parts").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str, opened: Open) -> None:
    """In both schemes every verdict's word stands out against its card by at least 4.5 to 1."""
    rows = [*divergence().rows[:2], undecided(3, "c:output")]
    from comparisons import result

    shown = opened(text_of(result(rows)), color_scheme=scheme)
    found = shown.evaluate(
        """() => { const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
          .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
        const card = light(getComputedStyle(document.querySelector('.card')).backgroundColor);
        return [...document.querySelectorAll('.word, .hint, .facts dt, .sums, .parts, .words')].map((e) => {
          const ink = light(getComputedStyle(e).color); return (Math.max(card, ink) + 0.05) / (Math.min(card, ink) + 0.05); }); }"""
    )
    assert found and min(found) >= 4.5


def test_print_shows_everything_on_white(opened: Open) -> None:
    """Printed, the page is black on white and nothing that was scrolled away is cut."""
    shown = opened(text_of(divergence()), color_scheme="dark")
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.evaluate("getComputedStyle(document.getElementById('detail')).maxHeight") == "none"
    assert len(shown.pdf()) > 10_000
