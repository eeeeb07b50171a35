"""``python -m tools.dialogues.evaluate [--dialogues N] [--dev] [--seed N]``: turn
taking, against fixed times.

The plain listener is given the silence, and the length of speech, at which its median
delays equal ours; so it answers and yields just as fast, and only the errors differ.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from tools.dialogues.listeners import Listener, Ours, Plain
from tools.dialogues.phrases import DEV, TEST
from tools.dialogues.play import Marks, play
from tools.dialogues.script import Dialogue, write
from tools.dialogues.senses import FRAME_MS, Senses, perceive
from voicechat.session.barge_in import BargeInSettings
from voicechat.session.turn_policy import AdaptiveSilence

DEV_SEED = 1_000
TEST_SEED = 50_000

Staged = list[tuple[Dialogue, Senses]]


@dataclass(frozen=True, slots=True)
class Comparison:
    ours: Marks
    plain: Marks
    plain_silence_ms: int
    plain_speech_ms: int


def stage(dialogues: int, *, dev: bool = False, seed: int | None = None) -> Staged:
    """Write so many dialogues, half of them English."""
    banks, usual_seed = (DEV, DEV_SEED) if dev else (TEST, TEST_SEED)
    first = usual_seed if seed is None else seed
    written = [write(banks[number % 2], first + number) for number in range(dialogues)]
    return [(dialogue, perceive(dialogue)) for dialogue in written]


def mark(staged: Staged, listener: Callable[[], Listener]) -> Marks:
    """Play all dialogues, each to a new listener."""
    marks = Marks()
    for dialogue, senses in staged:
        play(dialogue, senses, listener(), marks)
    return marks


def compare(staged: Staged) -> Comparison:
    """Mark ours, then the plain listener at the same median delays."""
    ours = mark(staged, lambda: Ours(AdaptiveSilence(), BargeInSettings()))
    silence_ms = _at_median(
        lambda ms: mark(staged, lambda: Plain(ms, 300)).delays_ms, ours.delays_ms
    )
    speech_ms = _at_median(
        lambda ms: mark(staged, lambda: Plain(500, ms)).reactions_ms, ours.reactions_ms
    )
    plain = mark(staged, lambda: Plain(silence_ms, speech_ms))
    return Comparison(ours, plain, silence_ms, speech_ms)


def _at_median(delays_at: Callable[[int], list[int]], wanted_ms: list[int]) -> int:
    """The shortest fixed time, in frames, whose median delay is not below the wanted
    one.

    The longer its time, the fewer errors the plain listener makes: rounding is in its
    favour.
    """
    median_ms = statistics.median(wanted_ms)
    low, high = 0, 64
    while low + 1 < high:
        middle = (low + high) // 2
        if statistics.median(delays_at(middle * FRAME_MS)) < median_ms:
            low = middle
        else:
            high = middle
    return high * FRAME_MS


def report(comparison: Comparison) -> str:
    """The table that the command prints."""
    ours, plain = comparison.ours, comparison.plain
    rows = [
        ("false end of turn", ours.false_ends, plain.false_ends, ours.turns),
        ("missed end of turn", ours.missed_ends, plain.missed_ends, ours.turns),
        (
            "false interruption",
            ours.false_interruptions,
            plain.false_interruptions,
            ours.quiet_overlaps,
        ),
        (
            "missed interruption",
            ours.missed_interruptions,
            plain.missed_interruptions,
            ours.interruptions,
        ),
    ]
    lines = [f"{'':24}{'ours':>8}{'plain':>8}{'of':>8}{'ratio':>8}"]
    for name, mine, theirs, total in rows:
        ratio = f"{mine / theirs:.2f}" if theirs else "-"
        lines.append(f"{name:24}{mine:8}{theirs:8}{total:8}{ratio:>8}")
    for name, mine_ms, theirs_ms in (
        ("answer delay, ms", ours.delays_ms, plain.delays_ms),
        ("interruption delay, ms", ours.reactions_ms, plain.reactions_ms),
    ):
        lines.append(
            f"{name:24}{statistics.median(mine_ms):8.0f}{statistics.median(theirs_ms):8.0f}   "
            "median;"
            f" p90 {_p90(mine_ms)} against {_p90(theirs_ms)}"
        )
    lines.append(
        f"plain: {comparison.plain_silence_ms} ms of silence, {comparison.plain_speech_ms} ms of "
        "speech"
    )
    return "\n".join(lines)


def _p90(values_ms: list[int]) -> int:
    return sorted(values_ms)[len(values_ms) * 9 // 10]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description="Compare turn taking with fixed times on scripted dialogues."
    )
    parser.add_argument("--dialogues", type=int, default=400)
    parser.add_argument(
        "--dev", action="store_true", help="the dialogues that the policy was tuned on"
    )
    parser.add_argument("--seed", type=int, help="the first dialogue's seed; each has the next")
    chosen = parser.parse_args()
    print(report(compare(stage(chosen.dialogues, dev=chosen.dev, seed=chosen.seed))))


if __name__ == "__main__":
    main()
