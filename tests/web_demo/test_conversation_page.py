"""The conversation page in a browser, against a live server: a recording speaks, the
loudspeaker is measured.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.web_demo.conftest import INSECURE_HOST
from tests.web_demo.stage import SILENT_FOR_A_SECOND, SOUND_AFTER_STOP_MS, Network

pytestmark = pytest.mark.real_time

OpenPage = Callable[..., Any]
AUDIBLE = 0.01
SILENT = 0.003
LOUDEST = "() => Math.max(0, ...window.loudness.slice(-200).map(([, level]) => level))"


def state(page: Any, name: str, within_ms: int = 120_000) -> None:
    page.wait_for_selector(f"main[data-state={name}]", timeout=within_ms)


def connected(page: Any) -> None:
    page.wait_for_selector("#connection[data-status=ready]", timeout=120_000)


def say(page: Any, words: str) -> None:
    page.fill("#say", words)
    page.press("#say", "Enter")


def heard(page: Any) -> None:
    """The reply is not only said to be spoken: the loudspeaker moves."""
    state(page, "speaking")
    page.wait_for_function(f"() => ({LOUDEST})() > {AUDIBLE}", timeout=120_000)


def speak_a_turn(page: Any, turn: int) -> None:
    page.click("#talk")
    state(page, "listening")
    words = page.locator("[data-role=user]").nth(turn)
    words.wait_for(timeout=120_000)
    page.wait_for_function(
        "turn => document.querySelectorAll('[data-role=user]')[turn].textContent.split(' "
        "').length >= 3",
        arg=turn,
    )
    page.click("#talk")
    heard(page)


@pytest.mark.long
def test_two_spoken_turns(open_page: OpenPage, speech: Path) -> None:
    page = open_page()
    connected(page)
    for turn in (0, 1):
        speak_a_turn(page, turn)
        assert page.locator("[data-role=assistant]").nth(turn).text_content().strip()
        state(page, "idle")
        assert page.evaluate(LOUDEST) < 1
    if speech.name == "goforward.wav":
        assert "forward" in page.locator("[data-role=user]").first.text_content()
    assert page.locator("#median strong").text_content().endswith(" ms")
    assert page.locator("#waterfall rect").count() >= 4


def test_a_cancel_silences_the_reply_and_cuts_its_text(open_page: OpenPage) -> None:
    page = open_page()
    connected(page)
    say(page, "what can you do")
    heard(page)
    page.wait_for_function("() => document.querySelector('.heard').textContent.length > 10")
    page.click("#stop")
    state(page, "interrupted")
    assert page.evaluate("stops") == [["click"]], "before the click was over"
    page.wait_for_function(SILENT_FOR_A_SECOND)
    assert page.evaluate(SOUND_AFTER_STOP_MS) < 2_000
    said = page.locator("[data-role=assistant]").text_content()
    assert said.startswith("I show that")
    assert "interrupt me at any time" not in said
    state(page, "idle")


def test_speaking_over_a_reply_stops_it(open_page: OpenPage) -> None:
    page = open_page()
    connected(page)
    say(page, "what can you do")
    heard(page)
    page.keyboard.press("Escape")
    state(page, "interrupted")
    say(page, "what can you do")
    heard(page)
    page.click("#talk")
    state(page, "listening")
    page.wait_for_function(f"() => ({LOUDEST})() < {SILENT}")
    page.click("#talk")


@pytest.mark.parametrize("audio", ["MP3_24000HZ_MONO_64KBPS", "WAV_24000HZ_MONO_16BIT"])
def test_other_formats_are_played(open_page: OpenPage, audio: str) -> None:
    page = open_page(
        script=f"localStorage.setItem('voicechat.settings', JSON.stringify({{format: '{audio}'}}));"
    )
    connected(page)
    say(page, "hello")
    heard(page)
    state(page, "idle")
    assert page.locator("#notice-text").text_content() == ""


def test_it_comes_back_when_the_network_was_cut(open_page: OpenPage, network: Network) -> None:
    page = open_page(at=network.url, lenient=True)
    connected(page)
    say(page, "what can you do")
    heard(page)
    network.cut()
    page.wait_for_selector("#connection[data-status=waiting]", timeout=120_000)
    page.wait_for_function(f"() => ({LOUDEST})() < {SILENT}", timeout=120_000)
    network.restore()
    connected(page)
    say(page, "hello")
    heard(page)
    assert page.locator("[data-role=user]").all_text_contents() == ["what can you do", "hello"]


def test_keyboard_alone(open_page: OpenPage) -> None:
    page = open_page()
    connected(page)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "talk":
            break
    assert page.evaluate("document.activeElement.id") == "talk"
    page.keyboard.down("Space")
    state(page, "listening")
    page.wait_for_selector("[data-role=user] .partial:not(:empty)", timeout=120_000)
    page.keyboard.up("Space")
    state(page, "speaking")
    page.keyboard.press("Escape")
    state(page, "interrupted")
    page.focus("#tab-latency")
    page.keyboard.press("ArrowRight")
    assert page.locator("#events").is_visible()
    assert page.locator("#log-rows tr").count() > 3


def test_a_wrong_key_is_told_in_plain_words(open_page: OpenPage) -> None:
    page = open_page(key="#key=wrong", lenient=True)
    page.wait_for_selector("#connection[data-status=refused]", timeout=120_000)
    assert "does not accept this key" in page.locator("#notice-text").text_content()
    assert page.locator("#key-form").is_visible()


def test_a_refused_microphone_is_told_in_plain_words(open_page: OpenPage) -> None:
    page = open_page(
        script="MediaDevices.prototype.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'));",
        locale="zh-CN",
    )
    connected(page)
    page.get_by_role("button", name="说话").click()
    page.wait_for_selector("#notice:not([hidden])")
    assert "麦克风" in page.locator("#notice-text").text_content()
    state(page, "idle")


def test_without_https_it_says_so_and_what_is_typed_is_answered(
    open_page: OpenPage, server: tuple[str, str]
) -> None:
    page = open_page(at=server[0].replace("127.0.0.1", INSECURE_HOST), lenient=True)
    assert not page.evaluate("isSecureContext")
    connected(page)
    page.click("#talk")
    page.wait_for_selector("#notice:not([hidden])")
    assert (
        page.locator("#notice-text").text_content().startswith("Browsers give the microphone only")
    )
    page.wait_for_selector("#talk[aria-pressed=false]")
    state(page, "idle")
    for turn, words in enumerate(("hello", "what can you do")):
        say(page, words)
        page.locator("[data-role=assistant] .heard:not(:empty)").nth(turn).wait_for(timeout=120_000)
        state(page, "idle")


def test_without_a_loudspeaker_replies_are_read(open_page: OpenPage) -> None:
    page = open_page(
        script="window.AudioContext = class {"
        " constructor() { throw new DOMException('no device', 'NotSupportedError'); } };"
    )
    connected(page)
    say(page, "hello")
    page.locator("[data-role=assistant] .heard:not(:empty)").wait_for(timeout=120_000)
    assert page.locator("#notice-text").text_content().endswith("shown as text only: no device")
    page.click("#talk")
    page.wait_for_selector("#talk[aria-pressed=false]")


COUNT_CONTEXTS = """
window.contexts = [];
window.AudioContext = class extends AudioContext {
  constructor(...options) { super(...options); contexts.push(this); }
};
"""


@pytest.mark.parametrize("state_told", [True, False])
def test_sound_that_the_browser_suspended_is_resumed(open_page: OpenPage, state_told: bool) -> None:
    silent = "" if state_told else "AudioContext.prototype.addEventListener = () => {};"
    page = open_page(script=COUNT_CONTEXTS + silent)
    connected(page)
    say(page, "hello")
    heard(page)
    state(page, "idle")
    page.evaluate("contexts[0].suspend()")
    page.evaluate("window.loudness.length = 0")
    say(page, "what can you do")
    heard(page)
    assert page.evaluate("contexts.length") == 1


def test_a_browser_that_keeps_nothing_is_enough(open_page: OpenPage) -> None:
    forbidden = (
        "Object.defineProperty(window, 'localStorage',"
        " { get() { throw new DOMException('', 'SecurityError'); } });"
    )
    page = open_page(script=forbidden)
    connected(page)
    page.click("#theme")
    say(page, "hello")
    heard(page)
    page = open_page("recognise.html", script=forbidden)
    assert page.locator("#speak").is_enabled()


def test_what_nobody_expected_to_fail_is_told(open_page: OpenPage) -> None:
    page = open_page(
        script="AnalyserNode = class { constructor() { throw new Error('out of tape'); } };",
        lenient=True,
    )
    connected(page)
    say(page, "hello")
    page.wait_for_selector("#notice:not([hidden])")
    assert "out of tape" in page.locator("#notice-text").text_content()


def test_the_log_is_saved_as_a_transcript(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page()
    connected(page)
    say(page, "hello")
    state(page, "speaking")
    page.get_by_role("tab", name="Events").click()
    with page.expect_download() as download:
        page.click("#log-download")
    download.value.save_as(tmp_path / "log.jsonl")
    lines = (tmp_path / "log.jsonl").read_text("utf-8").splitlines()
    assert lines[0].startswith('{"transcript":')
    assert any('"audio_ms":' in line for line in lines)
    assert lines[-1].endswith('"end":true}')


def test_the_key_is_in_no_address_and_no_store(
    open_page: OpenPage, server: tuple[str, str]
) -> None:
    page = open_page()
    addresses: list[str] = []
    page.on("websocket", lambda socket: addresses.append(socket.url))
    page.on("request", lambda request: addresses.append(request.url.split("#")[0]))
    page.reload()
    connected(page)
    key = server[1].removeprefix("#key=")
    assert any("speech-chat" in address for address in addresses)
    assert not any(key in address for address in addresses)
    assert key not in page.evaluate(
        "JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie"
    )
