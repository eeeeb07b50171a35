"""The API reference in a browser, against a live server: what is shown runs, and what
is tried is answered.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real_time

OpenPage = Callable[..., Any]


def opened(open_page: OpenPage, **options: object) -> Any:
    page = open_page("docs", **options)
    page.wait_for_selector("#socket-streamSpeech .code")
    return page


def unfold(page: Any, section: str) -> Any:
    article = page.locator(f"#{section}")
    article.locator(".trying > summary").click()
    return article


def tried(page: Any, section: str) -> Any:
    article = unfold(page, section)
    article.locator(".try [type=submit]").click()
    article.locator(".answer-line[data-ok]").wait_for(timeout=120_000)
    article.locator(".try [type=submit]:enabled").wait_for(timeout=120_000)
    return article


def test_the_shown_command_runs_as_it_stands(open_page: OpenPage, tmp_path: Path) -> None:
    page = opened(open_page)
    for section, file, text in (
        ("post_v1_audio_speech", "speech.mp3", ""),
        ("get_api_open_apis_v1_models", None, '"default"'),
        ("post_api_open_apis_v1_chat_completions", None, '"chat.completion"'),
    ):
        command = page.locator(f"#{section} .code code").text_content()
        run = subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        assert text in run.stdout
        if file is not None:
            assert (tmp_path / file).stat().st_size > 5_000


def test_speech_is_tried_and_heard(open_page: OpenPage) -> None:
    page = opened(open_page)
    article = tried(page, "post_v1_audio_speech")
    assert article.locator(".answer-line").text_content().startswith("200 OK")
    page.wait_for_function(
        "() => document.querySelector('#post_v1_audio_speech audio').duration > 0.5",
        timeout=120_000,
    )


def test_a_stream_of_events_is_shown_and_its_audio_put_together(open_page: OpenPage) -> None:
    page = opened(open_page)
    section = "post_api_open_apis_v1_chat_completions_with_voice_output"
    article = tried(page, section)
    shown = article.locator("pre.answer").text_content()
    assert '"chat.completion.chunk"' in shown
    assert '"status":"finish"' in shown
    page.wait_for_function(
        f"() => document.querySelector('#{section} audio').duration > 0.5", timeout=120_000
    )


def test_a_recording_is_sent_as_a_form(open_page: OpenPage, speech: Path) -> None:
    page = opened(open_page)
    article = unfold(page, "post_v1_audio_transcriptions")
    article.locator("input[type=file]").set_input_files(str(speech))
    assert f"file=@{speech.name}" in article.locator(".code code").text_content()
    article.locator(".try [type=submit]").click()
    article.locator("pre.answer:not([hidden])").wait_for(timeout=120_000)
    assert '"text"' in article.locator("pre.answer").text_content()


def test_examples_follow_what_is_filled_in(open_page: OpenPage) -> None:
    page = opened(open_page)
    article = page.locator(
        "#delete_api_open_apis_projects_project_easyllms_speechtotext_transcriptions_taskId"
    )
    unfold(page, article.get_attribute("id"))
    page.fill("#project", "mine")
    page.fill("#key", "another")
    article.locator(".try input").fill("t/1")
    code = article.locator(".code code")
    assert "/projects/mine/" in code.text_content()
    assert "/transcriptions/t%2F1" in code.text_content()
    assert "Bearer another" in code.text_content()
    article.get_by_role("button", name="Python").click()
    assert "requests.delete(" in code.text_content()
    page.reload()
    page.wait_for_selector("#socket-streamSpeech .code")
    assert page.locator(".code code").first.text_content().startswith("import requests"), (
        "the choice stays"
    )


def test_failures_are_shown(open_page: OpenPage) -> None:
    page = opened(open_page, lenient=True)
    page.fill("#key", "")
    article = unfold(page, "post_v1_audio_speech")
    article.locator(".try [type=submit]").click()
    assert "Enter your key first" in article.locator(".answer-line").text_content()
    assert page.evaluate("document.activeElement.id") == "key"
    page.fill("#key", "wrong")
    article.locator(".try [type=submit]").click()
    article.locator(".answer-line[data-ok=false]").wait_for()
    assert article.locator(".answer-line").text_content().startswith("401")
    assert "invalid" in article.locator("pre.answer").text_content()
    article.locator("textarea").fill("{")
    assert not article.locator("textarea").evaluate("(field) => field.checkValidity()")


def test_a_socket_is_held_from_the_page(open_page: OpenPage) -> None:
    page = opened(open_page)
    article = unfold(page, "socket-speechChat")
    article.get_by_role("button", name="Connect").click()
    article.locator(".answer", has_text="chat.created").wait_for(timeout=120_000)
    article.get_by_role("button", name="Send", exact=True).click()
    article.locator(".answer", has_text="conversation.chat.completed").wait_for(timeout=120_000)
    article.get_by_role("button", name="Disconnect").click()
    article.get_by_role("button", name="Connect", exact=True).wait_for()
    article.locator(".answer-line", has_text="1000").wait_for(timeout=120_000)


def test_the_key_is_taken_out_of_the_address(open_page: OpenPage, server: tuple[str, str]) -> None:
    page = opened(open_page)
    assert page.evaluate("location.hash") == ""
    assert page.input_value("#key") == server[1].removeprefix("#key=")
    page.get_by_role("link", name="Conversation", exact=True).click()
    page.wait_for_selector("#connection[data-status=ready]", timeout=120_000)


def test_on_a_phone_the_contents_are_a_page_of_their_own(open_page: OpenPage) -> None:
    page = opened(open_page, viewport={"width": 390, "height": 844}, locale="zh-CN")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#open-contents")
    page.fill("#find", "post SYNTHESIZE")
    visible = page.locator("#contents li li:visible")
    assert {item.split()[0] for item in visible.all_text_contents()} == {"Speak"}
    visible.first.click()
    assert page.locator("#contents").is_hidden()
    assert page.get_by_role("button", name="复制").first.is_visible()


def test_without_scripts_everything_can_be_read(browser: Any, server: tuple[str, str]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server[0]}/docs")
    assert page.locator("#post_v1_audio_speech").is_visible()
    assert page.locator("#access").is_hidden()
    context.close()
