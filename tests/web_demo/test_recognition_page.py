import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real_time

OpenPage = Callable[..., Any]


def test_a_file_is_recognised_and_exported(
    open_page: OpenPage, speech: Path, tmp_path: Path
) -> None:
    page = open_page("recognise.html")
    page.set_input_files("#file", str(speech))
    page.wait_for_function(
        "() => document.getElementById('progress').textContent.startsWith('Done')", timeout=120_000
    )
    page.wait_for_selector("#save-srt:enabled", timeout=120_000)
    page.wait_for_selector("main[data-state=idle]", timeout=120_000)
    saved = {}
    for kind in ("text", "srt", "json"):
        with page.expect_download() as download:
            page.click(f"#save-{kind}")
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        saved[kind] = path.read_text("utf-8")
    assert saved["text"].split()
    left = "(name) => document.querySelector(name).getBoundingClientRect().left"
    assert page.evaluate(left, "#result") == page.evaluate(left, "#drop"), (
        "text and box are in one line"
    )
    assert saved["srt"].startswith("1\n00:00:0")
    sentences = json.loads(saved["json"])["sentences"]
    assert sentences[0]["endMs"] > sentences[0]["beginMs"]
    assert sentences[0]["words"][0]["text"]


def test_speech_is_recognised_as_it_comes(open_page: OpenPage) -> None:
    page = open_page("recognise.html")
    page.get_by_role("button", name="Speak").click()
    page.wait_for_function(
        "() => document.getElementById('partial').textContent.length > 3", timeout=120_000
    )
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("main[data-state=idle]", timeout=120_000)
    assert page.locator("[data-role=user]").text_content().strip()
    assert page.locator("#notice-text").text_content() == ""


def test_what_is_no_audio_is_said_to_be_none(open_page: OpenPage) -> None:
    page = open_page("recognise.html")
    page.set_input_files("#file", {"name": "x.wav", "mimeType": "audio/wav", "buffer": b"no audio"})
    page.wait_for_selector("#notice:not([hidden])")
    assert "cannot be read" in page.locator("#notice-text").text_content()
