from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.real_time, pytest.mark.long]

OpenPage = Callable[..., Any]
RUN = "async () => (await axe.run()).violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.failureSummary)}`)"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
HANDBOOK = (
    "# Hotel\n\n## Breakfast\n\nBreakfast is served from seven to ten.\n\n## Pets\n\nDogs may stay."
)


def _file(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "mimeType": "text/markdown", "buffer": text.encode()}


def test_documents_are_read_tried_and_deleted(open_page: OpenPage) -> None:
    page = open_page("knowledge.html")
    page.set_input_files("#file", [_file("handbook.md", HANDBOOK), _file("空.pdf", "%PDF-1.7 x")])
    page.wait_for_selector("#files li[data-status=ENABLED]", timeout=120_000)
    page.wait_for_selector("#files li[data-status=ERROR]", timeout=120_000)
    page.wait_for_selector("main[data-state=idle]", timeout=120_000)
    titles = page.locator("#files .file-title").all_text_contents()
    assert titles == ["空.pdf", "handbook.md"]
    page.fill("#question", "When is breakfast served?")
    page.press("#question", "Enter")
    page.wait_for_selector("#found li", timeout=120_000)
    assert "from seven to ten" in page.locator("#found li").first.text_content()
    assert page.locator("#found strong").first.text_content().startswith("handbook.md")
    for title in titles:
        page.get_by_role("button", name=f"Delete {title}").click()
        page.wait_for_function(
            "(title) => ![...document.querySelectorAll('.file-title')].some((e) => e.textContent === title)",
            arg=title,
            timeout=120_000,
        )
    assert page.locator("#files-empty").is_visible()
    assert page.locator("#notice").is_hidden()


def test_what_the_server_refuses_is_told(open_page: OpenPage) -> None:
    page = open_page("knowledge.html", lenient=True)  # the browser logs the status 404
    page.fill("#base", "nobody")
    page.press("#base", "Enter")
    page.wait_for_selector("#notice:not([hidden])", timeout=120_000)
    assert "there is no agent or knowledge base" in page.locator("#notice-text").text_content()


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESKTOP), ("dark", PHONE)])
def test_no_violation(open_page: OpenPage, axe: str, scheme: str, viewport: dict[str, int]) -> None:
    page = open_page("knowledge.html", color_scheme=scheme, viewport=viewport)
    page.evaluate(axe)
    assert page.evaluate(RUN) == []
    long_name = f"{'a-long-name-' * 12}.md"
    page.set_input_files("#file", [_file(long_name, HANDBOOK)])
    page.wait_for_selector("#files li[data-status=ENABLED]", timeout=120_000)
    page.fill("#question", "When is breakfast served?")
    page.press("#question", "Enter")
    page.wait_for_selector("#found li", timeout=120_000)
    assert page.evaluate(RUN) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.click("#language")
    assert page.evaluate(RUN) == []
    assert page.locator("#files-title").text_content() == "文档"
    page.locator("#files button").first.click()
    page.wait_for_selector("#files-empty:not([hidden])", timeout=120_000)
