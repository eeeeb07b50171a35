"""Everything that a reply says is told and spoken, in order, each sentence before its
audio.
"""

from typing import Any

from tests.session.promises.driver import APOLOGY
from tests.session.promises.promise import Promise
from voicechat.session import effects as ef
from voicechat.session import notices as nt


class Speech(Promise):
    corners = ("apology", "apology spoken", "latency told", "text only", "sentence begun")

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self._timed: set[int] = set()

    def effect(self, effect: ef.Effect) -> None:
        if isinstance(effect, ef.Speak):
            made = self.world.replies[effect.reply]
            assert made.asked.voiced, "a reply that is text only has no voice"
            assert effect.sentence == len(made.sentences)
            assert effect.text.strip()
            assert not made.sentences_complete
            self.world.reach("apology", effect.text == APOLOGY.en)

    def notice(self, notice: nt.Notice) -> None:
        match notice:
            case nt.ReplyText(reply, text):
                made = self.world.replies[reply]
                assert made.text.startswith(made.text_told + text)
            case nt.ReplyTextFinished(reply):
                made = self.world.replies[reply]
                assert made.text_told == made.text
            case nt.SentenceBegun(reply, sentence, text):
                made = self.world.replies[reply]
                assert text == made.sentences[sentence]
                assert sentence >= made.sentences_begun
                self.world.reach("sentence begun")
            case nt.ReplyAudio(reply, packets, end_ms, sentence):
                made = self.world.replies[reply]
                assert sentence == made.sentences_begun - 1, "a sentence is told before its audio"
                assert end_ms > made.left_ms
                assert packets == (end_ms.to_bytes(4, "big"), b""), "packets keep their borders"
            case nt.ReplyAudioFinished(reply, spoken):
                made = self.world.replies[reply]
                assert list(spoken) == made.sentences
                assert made.ended
                assert made.next_sentence == len(made.sentences)
                assert made.left_ms == made.made_ms, "all of it has left"
                self.world.reach("apology spoken", made.sentences == [APOLOGY.en])
            case nt.ReplyEnded(reply, outcome, _, usage):
                made = self.world.replies[reply]
                assert usage == made.used, "what the model reported, all its answers together"
                if outcome is nt.Outcome.SPOKEN:
                    assert made.text_ended
                    assert made.text_told == made.text
                    self.world.reach("text only", not made.asked.voiced)
            case nt.LatencyMeasured(reply, measured):
                assert reply not in self._timed, "the latency of a reply is told once"
                self._timed.add(reply)
                assert sum(measured.stages_ms.values()) == measured.total_ms <= self.world.now
                self.world.reach("latency told")
            case _:
                pass
