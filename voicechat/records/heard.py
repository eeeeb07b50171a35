"""Computes what the user heard of the replies, and when, from the events of a record.

It follows the kernel's playback clock (``session/playback.py``): a reply plays from the
moment in which its first audio was handed to the socket, and waits when it runs out. A
client that reports what it has played is believed instead: what it played before a
report is placed so that it ends with the report. An interruption, and the client's own
report of where it stopped, end the reply.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from voicechat.records.line_format import JsonObject

JOINED_MS = 40
"""Two parts that are this close are played without a gap: reports are rounded, and come
a little early or late.
"""


@dataclass(frozen=True, slots=True)
class Placement:
    """A part of a reply that was heard."""

    reply: int
    from_ms: int
    """Its beginning and its end in the reply's audio."""
    to_ms: int
    at_ms: int
    """When its beginning was heard, on the session's clock."""

    @property
    def ends_at_ms(self) -> int:
        """When its end was heard."""
        return self.at_ms + self.to_ms - self.from_ms


@dataclass(slots=True)
class _Playback:
    """One reply, as far as it is being heard."""

    reply: int
    sent_ms: int = 0
    position_ms: int = 0
    """Where the open part begins in the reply's audio, and when that was heard."""
    since_ms: int = 0
    stopped: bool = False
    parts: list[Placement] = field(default_factory=list)

    def sent(self, end_ms: int, now_ms: int) -> None:
        if self.stopped:
            return
        if self._reached(now_ms) >= self.sent_ms:  # it had run out of audio
            self._close(self._reached(now_ms), self.since_ms)
            self.since_ms = now_ms
        self.sent_ms = max(self.sent_ms, end_ms)

    def played(self, to_ms: int, now_ms: int) -> None:
        to_ms = max(0, min(to_ms, self.sent_ms))
        if to_ms < self.position_ms:
            self._cut(to_ms)
        self._close(to_ms, now_ms - (to_ms - self.position_ms))
        self.since_ms = now_ms

    def stop(self, now_ms: int) -> None:
        if not self.stopped:
            self.stopped = True
            self._close(self._reached(now_ms), self.since_ms)

    def truncate(self, heard_ms: int) -> None:
        """The client stopped at ``heard_ms``, whatever the clock says."""
        heard_ms = min(heard_ms, self.sent_ms)
        self._cut(heard_ms)
        if self.parts and heard_ms > self.position_ms:
            self.parts[-1] = replace(self.parts[-1], to_ms=heard_ms)
        self.stopped = True
        self.position_ms = heard_ms

    def _reached(self, now_ms: int) -> int:
        return min(self.sent_ms, self.position_ms + max(0, now_ms - self.since_ms))

    def _close(self, to_ms: int, at_ms: int) -> None:
        """End the open part at ``to_ms``; its beginning was heard at ``at_ms``."""
        if to_ms > self.position_ms:
            last = self.parts[-1] if self.parts else None
            if last is not None and at_ms < last.ends_at_ms + JOINED_MS:
                self.parts[-1] = replace(last, to_ms=to_ms)
            else:
                self.parts.append(Placement(self.reply, self.position_ms, to_ms, at_ms))
        self.position_ms = max(self.position_ms, to_ms)

    def _cut(self, to_ms: int) -> None:
        kept = [part for part in self.parts if part.from_ms < to_ms]
        self.parts = [replace(part, to_ms=min(part.to_ms, to_ms)) for part in kept]
        self.position_ms = min(self.position_ms, to_ms)


class HeardReplies:
    """Takes the lines of a record in their order."""

    def __init__(self) -> None:
        self._replies: dict[int, _Playback] = {}
        self._now_ms = 0

    def take(self, line: JsonObject) -> None:
        """Take the next line."""
        if "t" in line:
            self._now_ms = max(self._now_ms, int(line["t"]))
        name, data = line.get("event"), line.get("data") or {}
        if name == "AudioSent":
            self._of(data["reply"]).sent(data["end_ms"], self._now_ms)
        elif name == "Played" and data["reply"] in self._replies:
            playback = self._replies[data["reply"]]
            if not playback.stopped:
                playback.played(data["played_ms"], self._now_ms)
        if name == "Disconnected":
            self._stop_all()
        for effect in line.get("effects") or ():
            if effect[0] == "StopReply" and effect[1]["reply"] in self._replies:
                self._replies[effect[1]["reply"]].stop(self._now_ms)
        if name == "TruncateReply" and data["reply"] in self._replies:
            accepted = any(each[:2] == ["Send", "ReplyCut"] for each in line.get("effects") or ())
            if accepted:
                self._replies[data["reply"]].truncate(data["heard_ms"])

    def placements(self) -> list[Placement]:
        """Return everything that was heard, in the order of its beginning. What is
        still playing ends with the last line.
        """
        self._stop_all()
        parts = (part for playback in self._replies.values() for part in playback.parts)
        return sorted(parts, key=lambda part: part.at_ms)

    def _of(self, reply: int) -> _Playback:
        if reply not in self._replies:
            self._replies[reply] = _Playback(reply, since_ms=self._now_ms)
        return self._replies[reply]

    def _stop_all(self) -> None:
        for playback in self._replies.values():
            playback.stop(self._now_ms)


def placements_of(lines: Iterable[JsonObject]) -> list[Placement]:
    """Return what was heard in a whole record."""
    heard = HeardReplies()
    for line in lines:
        heard.take(line)
    return heard.placements()
