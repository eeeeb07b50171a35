"""Hands-free on the page: a scripted server decides and the page must follow at once;
then the live server decides.
"""

import base64
import json
import math
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.web_demo.stage import SILENT_FOR_A_SECOND, SOUND_AFTER_STOP_MS

pytestmark = pytest.mark.real_time

OpenPage = Callable[..., Any]
RATE_HZ = 24_000
REPLY_MS = 20_000
"""Longer than any machine needs to stop it."""
AUDIBLE = "() => loudness.some(([, level]) => level > 0.01)"
NOTE_INTERRUPTION = """() => {
  window.stops.length = 0;
  const main = document.getElementById("main");
  const note = () => {
    if (main.dataset.state !== "interrupted") return;
    window.interruptedAtMs ??= performance.now();
    window.stopsWhenInterrupted ??= window.stops.length;
  };
  new MutationObserver(note).observe(main, { attributes: true });
}"""
ONSET_TO_SILENCE_MS = """() => {
  const before = window.spoken.filter(([at]) => at < window.interruptedAtMs);
  const isLoud = ([, level]) => level > 0.02;
  // After 300 ms without speech, at 4 ms a sample.
  const isOnset = (sample, index) => isLoud(sample) && !before.slice(Math.max(0, index - 75), index).some(isLoud);
  const onsets = before.filter(isOnset);
  const silentAt = Math.max(...window.loudness.filter(([, level]) => level > 0.003).map(([at]) => at));
  return silentAt - onsets.at(-1)[0];
}"""
AUDIBLE_MS = """() => {
  let [sure, unsure, last] = [0, 0, {}];
  for (const [at, level, , tap] of window.loudness) {
    const [before, wasLoud] = last[tap] ?? [at, false];
    const loud = level > 0.003;
    if (loud && wasLoud) sure += at - before;
    else if (loud || wasLoud) unsure += at - before;
    last[tap] = [at, loud];
  }
  return [sure, unsure];
}"""
"""How long it was heard for sure, and how long something began or ended between two
looks, which a busy machine takes less often than every 4 ms.
"""


def tone(length_ms: int) -> str:
    samples = [
        int(12_000 * math.sin(2 * math.pi * 220 * n / RATE_HZ))
        for n in range(RATE_HZ * length_ms // 1000)
    ]
    return base64.b64encode(struct.pack(f"<{len(samples)}h", *samples)).decode()


class ScriptedServer:
    """Answers the opening, notes what the page sends, and says what a test tells it
    to.
    """

    def __init__(self, page: Any, refuse: str = "") -> None:
        self.refuse = refuse
        self.received: list[dict[str, Any]] = []
        self.audio = threading.Event()
        self._socket: Any = None
        page.route_web_socket("**/speech-chat*", self._opened)

    def _opened(self, socket: Any) -> None:
        self._socket = socket
        socket.on_message(self._take)
        self.say(event_type="chat.created", status=0, message="")

    def _take(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self.audio.set()
            return
        message = json.loads(frame)
        self.received.append(message)
        if message["event_type"] == "chat.update":
            wanted = "turn_detection" in json.loads(message["message"])
            refused = self.refuse if wanted else ""
            self.say(event_type="chat.updated", status=40003 if refused else 0, message=refused)

    def say(self, **message: Any) -> None:
        self._socket.send(json.dumps(message))

    def hear(self, text: str) -> None:
        """The user has said something, and the server has found the end of it."""
        self.say(
            event_type="input_audio_buffer.speech_started", status=0, message="", audio_start_ms=0
        )
        self.say(text=text, begin_time=0, end_time=None, words=[], is_sentence_end=False)
        self.say(
            event_type="input_audio_buffer.speech_stopped", status=0, message="", audio_end_ms=200
        )
        self.say(
            event_type="input_audio_buffer.completed", status=0, message="", reason="turn_detected"
        )
        self.say(text=text, begin_time=0, end_time=200, words=[], is_sentence_end=True)

    def reply(self, number: int, text: str, length_ms: int) -> None:
        reply = f"chatcmpl-x-{number}"
        self.say(
            id=reply, choices=[{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]
        )
        self.say(id=reply, status="accepting", usage=None, audioFrame=tone(length_ms))
        self.say(id=reply, status="finish", usage={"characters": len(text)}, audioFrame=None)
        self.say(event_type="conversation.chat.completed", status=0, message="")

    def interrupt(self) -> None:
        self.say(
            event_type="conversation.chat.canceled", status=0, message="", reason="turn_detected"
        )


def open_hands_free(
    open_page: OpenPage, refuse: str = "", **options: object
) -> tuple[Any, ScriptedServer]:
    page = open_page(key="", **options)
    server = ScriptedServer(page, refuse)
    page.route("**/tokens", lambda route: route.fulfill(status=201, json={"token": "t"}))
    page.evaluate("location.hash = '#key=any'")
    page.wait_for_selector("#connection[data-status=ready]")
    return page, server


def state(page: Any, name: str) -> None:
    page.wait_for_selector(f"main[data-state={name}]", timeout=120_000)


def test_turns_come_and_go_without_a_hand(open_page: OpenPage) -> None:
    page, server = open_hands_free(open_page)
    page.get_by_role("button", name="Hands-free").click()
    state(page, "listening")
    detection = json.loads(server.received[-1]["message"])["turn_detection"]
    assert detection["type"] == "server_vad"
    while not server.audio.is_set():  # the page's frames come while it is waited for
        page.wait_for_timeout(20)
    server.hear("go forward")
    state(page, "thinking")
    server.reply(1, "Going.", REPLY_MS)
    state(page, "speaking")
    page.wait_for_function(AUDIBLE)
    page.evaluate(NOTE_INTERRUPTION)
    server.interrupt()
    state(page, "interrupted")
    assert page.evaluate("stopsWhenInterrupted") == 1, "in the task that got the server's word"
    page.wait_for_function(SILENT_FOR_A_SECOND)
    assert page.evaluate("stopped[0][0]") < REPLY_MS * RATE_HZ // 1000, "there was more to say"
    assert page.evaluate(SOUND_AFTER_STOP_MS) < 2_000
    state(page, "listening")
    server.hear("stop")
    server.reply(2, "All right.", 400)
    state(page, "speaking")
    state(page, "listening")
    assert page.locator("[data-role=user]").all_text_contents() == ["go forward", "stop"]
    assert not any(
        message["event_type"] == "conversation.chat.cancel" for message in server.received
    )


@pytest.mark.long
def test_the_playback_clock_keeps_the_time_of_the_wall(open_page: OpenPage) -> None:
    page, server = open_hands_free(open_page)
    page.get_by_role("button", name="Hands-free").click()
    state(page, "listening")
    turns, length_ms = 24, 2500  # a minute of speech
    for number in range(1, turns + 1):
        server.hear("again")
        server.reply(number, "Once more, the same.", length_ms)
        state(page, "speaking")
        state(page, "listening")
    played = [
        message
        for message in server.received
        if message["event_type"] == "conversation.audio.played"
    ]
    last = {message["reply"]: message["played_ms"] for message in played}
    assert last == {number: length_ms for number in range(1, turns + 1)}
    sure_ms, unsure_ms = page.evaluate(AUDIBLE_MS)
    print(f"{sure_ms:.0f} ms audible, perhaps {unsure_ms:.0f} more, of {turns * length_ms}")
    assert sure_ms - turns * 40 < turns * length_ms < sure_ms + unsure_ms + turns * 40


def test_a_server_without_it_is_told_of_in_plain_words(open_page: OpenPage) -> None:
    page, server = open_hands_free(
        open_page, "turn_detection: an object is not supported by this version"
    )
    page.get_by_role("button", name="Hands-free").click()
    page.wait_for_selector("#notice:not([hidden])")
    assert (
        "does not offer hands-free conversation, so hold Talk"
        in page.locator("#notice-text").text_content()
    )
    state(page, "idle")
    assert page.locator("#hands-free").get_attribute("aria-pressed") == "false"
    assert page.locator("#talk").is_enabled()
    assert "turn_detection" not in json.loads(server.received[-1]["message"])


def test_the_button_speaks_chinese(open_page: OpenPage) -> None:
    page, _ = open_hands_free(open_page, locale="zh-CN")
    page.get_by_role("button", name="免提").click()
    state(page, "listening")
    page.get_by_role("button", name="免提").click()
    state(page, "idle")


@pytest.mark.long
def test_the_live_server_ends_turns_and_is_interrupted_by_voice(open_page: OpenPage) -> None:
    # The recording plays over and over: the second time it speaks into the reply to the
    # first.
    page = open_page()
    page.wait_for_selector("#connection[data-status=ready]")
    page.evaluate(NOTE_INTERRUPTION)
    page.get_by_role("button", name="Hands-free").click()
    page.wait_for_selector("main[data-state=speaking]", timeout=120_000)
    page.wait_for_selector("main[data-state=interrupted]", timeout=120_000)
    page.wait_for_timeout(200)
    assert page.evaluate("stopsWhenInterrupted") >= 1, "in the task that got the server's word"
    page.wait_for_function(SILENT_FOR_A_SECOND)
    print(f"silent {page.evaluate(ONSET_TO_SILENCE_MS):.0f} ms after the onset of speech")
    assert page.evaluate(SOUND_AFTER_STOP_MS) < 2_000
    page.wait_for_selector("main[data-state=speaking]", timeout=120_000)
    page.get_by_role("button", name="Hands-free").click()
    assert page.locator("[data-role=user]").count() >= 2
    assert page.locator(".note:not(:empty)").count() >= 1
