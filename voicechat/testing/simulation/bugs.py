"""Bugs to put into the servers of a simulation, to see that it finds them.

Each replaces one function of the server while ``planted`` lasts. ``docs/simulation.md``
lists how long each takes to be found.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from voicechat.dialects.speech_chat import settings as speech_chat_settings
from voicechat.runtime.audio_input.recognition_streams import RecognitionStreams
from voicechat.runtime.fallback import chat
from voicechat.runtime.fallback.relay import ItemVerdict
from voicechat.runtime.outbox import Outbox
from voicechat.runtime.provider_deadlines import TimedItems
from voicechat.session import session as sessions
from voicechat.session.history import History
from voicechat.session.idle_timeout import IdleTimeout
from voicechat.session.reply import Reply
from voicechat.store.session_slots import SessionSlots

_NEVER_MS = 10**12


@dataclass(frozen=True, slots=True)
class Bug:
    """One function that is replaced."""

    about: str
    owner: Any
    name: str
    make: Callable[[Any], Any]
    """Returns the wrong function for the right one."""


def _always(value: object) -> Callable[[Any], Any]:
    return lambda _right: lambda *_args, **_named: value


def _unanswering(right: Any) -> Any:
    def judge_item(self: Any, item: Any) -> ItemVerdict:
        verdict = right(self, item)
        return ItemVerdict(verdict.passes, False, verdict.within_s)

    return judge_item


def _heard_all(right: Any) -> Any:
    return lambda self, _now_ms: self.heard_text_until(self.made_ms)


def _forgetful_replay(right: Any) -> Any:
    def open_stream(self: Any, effect: Any) -> None:
        old = self._streams.get(effect.replay_of)
        if old is not None:
            old.kept.clear()
        right(self, effect)

    return open_stream


def _overtaking(right: Any) -> Any:
    def put_frames(self: Any, frames: Sequence[Any], *, urgent: bool = False, **named: Any) -> None:
        before = list(self._queue) if urgent else []
        if urgent:
            self._queue.clear()
        right(self, frames, urgent=urgent, **named)
        self._queue.extend(before)

    return put_frames


def _sharing(right: Any) -> Any:
    shared: list[Any] = []

    def begin(self: Any, most_items: int) -> None:
        right(self, most_items)
        self._items = shared

    return begin


def _not_closing(right: Any) -> Any:
    async def leave(self: Any, *_raised: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        _kept.append(self._items)

    return leave


_kept: list[Any] = []


BUGS: Mapping[str, Bug] = {
    "stale-events-pass": Bug(
        "events of a reply or stream that is over are handled like others",
        sessions.Session,
        "_stale",
        _always(None),
    ),
    "urgent-overtakes": Bug(
        "an urgent message overtakes those that wait", Outbox, "put_frames", _overtaking
    ),
    "unheard-remembered": Bug(
        "the history keeps all that was made of an interrupted reply",
        Reply,
        "heard_text",
        _heard_all,
    ),
    "never-forgets": Bug(
        "conversation.clear is granted, and nothing is forgotten", History, "clear", _always(None)
    ),
    "place-kept": Bug(
        "the place of a session is not given back", SessionSlots, "release_slot", _always(None)
    ),
    "replay-without-audio": Bug(
        "a recogniser that replaces a failed one does not hear the words before",
        RecognitionStreams,
        "open",
        _forgetful_replay,
    ),
    "half-open-kept": Bug(
        "a session never ends because its client is silent",
        IdleTimeout,
        "deadline_ms",
        _always(_NEVER_MS),
    ),
    "stream-kept": Bug(
        "a provider's stream is not closed when its use is over",
        TimedItems,
        "__aexit__",
        _not_closing,
    ),
    "said-twice-after-retry": Bug(
        "a model that breaks off is replaced by one that begins anew",
        chat._ChatChainRequest,
        "judge_item",
        _unanswering,
    ),
    "shared-history": Bug("conversations share one history", History, "__init__", _sharing),
    "refresh-ignored": Bug(
        "with asr_mode refresh, words during a reply are heard",
        speech_chat_settings,
        "Settings",
        lambda right: lambda **named: right(**{**named, "half_duplex": False}),
    ),
}
"""The bugs by their names."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a bug while the context lasts. Raises ``KeyError`` for an unknown name."""
    bug = BUGS[name]
    right = getattr(bug.owner, bug.name)
    setattr(bug.owner, bug.name, bug.make(right))
    try:
        yield
    finally:
        setattr(bug.owner, bug.name, right)
        _kept.clear()
