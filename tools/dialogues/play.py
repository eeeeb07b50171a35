"""Plays a dialogue to a listener in steps of 32 ms and marks what it did."""

from dataclasses import dataclass, field

from tools.dialogues.listeners import Listener
from tools.dialogues.script import Dialogue, Overlap
from tools.dialogues.senses import Senses, text_of
from voicechat.runtime.audio_input.echo_gate import PREVAILS
from voicechat.voice.activity import SpeechActivity, SpeechOffset, SpeechOnset

MISSED_END_MS = 2_000
"""An answer that comes later than this after the turn is no answer."""
MISSED_INTERRUPTION_MS = 1_500
"""A reply that is still heard so long after the user began, or half a second after they
ended, was not interrupted.
"""


@dataclass(slots=True)
class Marks:
    """Counts over many dialogues."""

    turns: int = 0
    false_ends: int = 0
    missed_ends: int = 0
    delays_ms: list[int] = field(default_factory=list)
    quiet_overlaps: int = 0
    false_interruptions: int = 0
    interruptions: int = 0
    missed_interruptions: int = 0
    reactions_ms: list[int] = field(default_factory=list)


def play(dialogue: Dialogue, senses: Senses, listener: Listener, marks: Marks) -> None:
    """Play the whole dialogue and add to ``marks``."""
    ends_ms, stops_ms = _listen(dialogue, senses, listener)
    for number, (begin_ms, end_ms) in enumerate(dialogue.turn_spans_ms):
        overlap = dialogue.overlaps[number]
        _mark_turn(
            marks, end_ms, [at_ms for at_ms in ends_ms if begin_ms <= at_ms < overlap.begin_ms]
        )
        _mark_overlap(
            marks,
            overlap,
            [at_ms for at_ms in stops_ms if overlap.begin_ms <= at_ms < overlap.end_ms + 1_000],
        )


def _mark_turn(marks: Marks, end_ms: int, at_ms: list[int]) -> None:
    marks.turns += 1
    marks.false_ends += any(at < end_ms for at in at_ms)
    answered = [at for at in at_ms if end_ms <= at <= end_ms + MISSED_END_MS]
    if answered:
        marks.delays_ms.append(answered[0] - end_ms)
    else:
        marks.missed_ends += 1


def _mark_overlap(marks: Marks, overlap: Overlap, at_ms: list[int]) -> None:
    if overlap.interruption is None:
        marks.quiet_overlaps += 1
        marks.false_interruptions += bool(at_ms)
        return
    begin_ms, end_ms = overlap.interruption
    marks.interruptions += 1
    by_ms = min(begin_ms + MISSED_INTERRUPTION_MS, end_ms + 500)
    in_time = [at for at in at_ms if begin_ms <= at <= by_ms]
    if in_time:
        marks.reactions_ms.append(in_time[0] - begin_ms)
    else:
        marks.missed_interruptions += 1


def _listen(dialogue: Dialogue, senses: Senses, listener: Listener) -> tuple[list[int], list[int]]:
    """Give the times at which the listener ended a turn, and at which it stopped its
    reply.
    """
    activity = SpeechActivity()
    partials = list(reversed(senses.partials))
    turn_texts: dict[int, str] = {}
    sound_texts: dict[int, str] = {}
    ends_ms: list[int] = []
    stops_ms: list[int] = []
    overlaps = iter(dialogue.overlaps)
    overlap = next(overlaps)
    for frame in senses.frames:
        now_ms = frame.end_ms
        if now_ms >= overlap.end_ms:
            overlap = next(overlaps, overlap)
        replying = overlap.begin_ms <= now_ms < overlap.end_ms
        is_echo = listener.knows_echo and frame.echo_share > PREVAILS
        event = activity.push(now_ms, 0.0 if is_echo else frame.probability)
        match event:
            case SpeechOnset():
                sound_texts = {}
                listener.started(event.onset_ms, now_ms, replying=replying)
            case SpeechOffset():
                listener.stopped(event.audio_end_ms)
            case None:
                pass
        while partials and partials[-1].at_ms <= now_ms:
            partial = partials.pop()
            turn_texts[partial.sound] = sound_texts[partial.sound] = partial.text
            listener.transcribed(text_of(turn_texts), text_of(sound_texts), now_ms)
        if (
            replying
            and not (stops_ms and now_ms - stops_ms[-1] < 2_000)
            and listener.interrupted(now_ms)
        ):
            stops_ms.append(now_ms)
        if replying:
            turn_texts = {}
        elif listener.turn_ended(now_ms):
            ends_ms.append(now_ms)
            turn_texts = {}
    return ends_ms, stops_ms
