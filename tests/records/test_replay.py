"""A record repeats its conversation; a changed kernel is told by its first
difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.session.promises.driver import LIMITS
from tests.session.promises.test_promises import Telephone
from voicechat.records.line_format import Causes, line_of, write_event, write_setup
from voicechat.records.replay import UnreplayableError, replay
from voicechat.records.setup import SessionSetup
from voicechat.session import commands as cmd
from voicechat.session import effects as ef
from voicechat.session import events as ev
from voicechat.session.fallback_message import FallbackMessage
from voicechat.session.session import Session
from voicechat.session.turn_end import TurnEnd
from voicechat.session.types import Settings, Transcript, TurnDetection


class Recorded(Telephone):
    """The random world, whose every conversation is recorded and replayed."""

    replayed = 0

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []
        self.causes = Causes()

    def feed(self, event: ev.Event) -> list[ef.Effect]:
        if not self.lines:
            self.lines.append(first_line(setup_of(self.session)))
        effects = super().feed(event)
        self.lines.append(line_of(write_event(self.now, event, effects, self.causes)))
        return effects

    def teardown(self) -> None:
        if self.lines:
            told = replay(self.lines)
            assert told.difference is None, str(told.difference)
            assert told.stopped == ""
            assert told.events == len(self.lines) - 1
            type(self).replayed += 1


def setup_of(session: Session) -> SessionSetup:
    core = session._core
    return SessionSetup(
        limits=LIMITS, fallback_message=core.replies._fallback_message, settings=core.settings
    )


def first_line(setup: SessionSetup) -> bytes:
    return line_of({"begin": {"version": 1, "setup": write_setup(setup)}})


def histories(count: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=50,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


def test_random_conversations_replay_alike() -> None:
    Recorded.replayed = 0
    run_state_machine_as_test(seed(5)(Recorded), settings=histories(4))
    assert Recorded.replayed >= 4


@pytest.mark.long
def test_more_random_conversations_replay_alike() -> None:
    """``python -m tools.replay_histories`` replays a thousand."""
    Recorded.replayed = 0
    run_state_machine_as_test(seed(6)(Recorded), settings=histories(200))
    assert Recorded.replayed >= 200


def recorded(
    setup: SessionSetup, events: Sequence[tuple[int, ev.Event]], session: Session | None = None
) -> list[bytes]:
    """Hold a conversation of these events, and return its record."""
    session = session or setup.open()
    causes = Causes()
    lines = [first_line(setup)]
    for at_ms, event in events:
        lines.append(line_of(write_event(at_ms, event, session.receive(event, at_ms), causes)))
    return lines


HANDS_FREE = SessionSetup(settings=Settings(turn_detection=TurnDetection()))
SPOKEN: Sequence[tuple[int, ev.Event]] = (
    (0, ev.Opened()),
    (100, ev.AudioStarted()),
    (500, ev.SpeechStarted(400, 100)),
    (900, ev.Transcribed(1, Transcript("what time is it", 400))),
    (1500, ev.SpeechStopped(1400, 100)),
    (1600, ev.Transcribed(1, Transcript("what time is it?", 400, 1400))),
    (1800, ev.Ticked()),
    (2100, ev.Ticked()),
    (2600, ev.Ticked()),
)


def test_a_changed_rule_shows_its_first_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = recorded(HANDS_FREE, SPOKEN)
    assert replay(lines).difference is None
    unchanged: Callable[[TurnEnd], int] = TurnEnd._silence_ms

    monkeypatch.setattr(TurnEnd, "_silence_ms", lambda self: unchanged(self) + 250)
    difference = replay(lines).difference

    assert difference is not None
    assert difference.event["event"] == "Transcribed"
    assert difference.recorded != difference.replayed
    assert "recorded" in str(difference)


def test_causes_keep_who_asked_for_what() -> None:
    first, second = object(), object()
    lines = recorded(
        SessionSetup(),
        [
            (0, ev.Opened()),
            (1, cmd.Configure(Settings(), cause=first)),
            (2, cmd.ClearHistory(cause=second)),
            (3, cmd.Configure(Settings(half_duplex=True), cause=first)),
        ],
    )
    assert b'["Send","Done",{"cause":"c1"}]' in lines[2]
    assert b'"cause":"c2"' in lines[3]
    assert b'["Send","Done",{"cause":"c1"}]' in lines[4]
    assert replay(lines).difference is None


def test_a_replay_ends_where_it_is_told_and_where_events_are_missing() -> None:
    lines = recorded(HANDS_FREE, SPOKEN)
    part = replay(lines, until_ms=900)
    assert (part.events, part.until_ms) == (4, 900)
    assert "900 ms" in part.stopped
    lines.insert(4, line_of({"t": 700, "gap": {"until": 800, "entries": 3}}))
    cut = replay(lines)
    assert cut.events == 3
    assert "missing" in cut.stopped
    torn = replay([*recorded(HANDS_FREE, SPOKEN), b'{"t":2700,"event":"Tick'])
    assert torn.events == len(SPOKEN)
    assert "line 11 cannot be read" in torn.stopped


def test_a_conversation_that_continues_another_replays_from_its_snapshot() -> None:
    session = HANDS_FREE.open()
    for at_ms, event in SPOKEN:
        session.receive(event, at_ms)
    kept = session.snapshot(2700)
    setup = replace(HANDS_FREE, kept=kept, settings=kept.settings)
    lines = recorded(
        setup, [(2700, ev.Restored(speak_on=False)), (2800, cmd.Cancel()), (2900, cmd.HangUp())]
    )
    assert replay(lines).difference is None
    assert replay(lines).events == 3
    begun_anew = [first_line(HANDS_FREE), *lines[1:]]
    assert replay(begun_anew).difference is not None


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (b"", "first line"),
        (b"[]", "first line"),
        (b'{"begin":{"version":7,"setup":{}}}', "version 7"),
        (b'{"begin":{"version":1,"redacted":true,"setup":{}}}', "redacted"),
    ],
)
def test_what_cannot_be_replayed_says_why(first: bytes, why: str) -> None:
    with pytest.raises(UnreplayableError, match=why):
        replay([first])


def test_what_json_cannot_hold_is_replaced() -> None:
    assert line_of({"n": 2**80, "deep": FallbackMessage()}).startswith(b'{"n":1.2089')
    assert line_of({"odd": object()}) == b'{"odd":"<object>"}\n'
