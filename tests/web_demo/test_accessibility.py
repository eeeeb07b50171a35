from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real_time

OpenPage = Callable[..., Any]
RUN = """async () => {
  const { violations } = await axe.run();
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.failureSummary).join(" | ")}`);
}"""
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_no_violation_in_any_state(
    open_page: OpenPage, axe: str, scheme: str, viewport: dict[str, int]
) -> None:
    page = open_page(color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    page.wait_for_selector("#connection[data-status=ready]", timeout=120_000)
    page.evaluate(axe)

    def check(what: str) -> None:
        assert page.evaluate(RUN) == [], what

    check("idle")
    page.fill("#say", "what can you do")
    page.press("#say", "Enter")
    page.wait_for_selector("main[data-state=speaking]", timeout=120_000)
    check("speaking")
    page.click("#stop")
    check("interrupted")
    if viewport is PHONE:
        page.click("#open-panel")
    for tab in ("latency", "events", "settings"):
        page.click(f"#tab-{tab}")
        check(tab)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"], "nothing is cut off at the side"


def test_the_recognition_page(open_page: OpenPage, axe: str, speech: Path) -> None:
    page = open_page("recognise.html")
    page.evaluate(axe)
    assert page.evaluate(RUN) == []


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_reference(
    open_page: OpenPage, axe: str, scheme: str, viewport: dict[str, int]
) -> None:
    page = open_page("docs", color_scheme=scheme, viewport=viewport)
    page.wait_for_selector("#socket-streamSpeech .code")
    page.evaluate(axe)
    assert page.evaluate(RUN) == []
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    assert page.evaluate(RUN) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    if viewport is PHONE:
        page.click("#open-contents")
        assert page.evaluate(RUN) == []
