"""The child process of the ``pocketsphinx`` provider.

A process, because PocketSphinx holds the interpreter lock while it decodes, with
measured stalls of 200 ms.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

from pocketsphinx import Decoder, NGramModel, get_model_path

from voicechat.audio.bandwidth_extension import BandwidthExtension
from voicechat.processes.child import serve
from voicechat.providers.pocketsphinx import TELEPHONE
from voicechat.providers.sentence_decoding import SentenceDecoding
from voicechat.providers.transcript_json import encode_transcript
from voicechat.session.types import Word

FRAMES_PER_SECOND = 100
_MS_PER_FRAME = 1000 // FRAMES_PER_SECOND

DECODER_OPTIONS: dict[str, object] = {
    "loglevel": "FATAL",
    "frate": FRAMES_PER_SECOND,
    # The second and third pass begin only when the utterance ends. They delay the final
    # result to 155 ms instead of about 20 for sentences of 3 to 7 s, and do not improve
    # the words (71 words of prose, a third wrong either way).
    "fwdflat": False,
    "bestpath": False,
    # The language model is loaded once and shared by all decoders of the process (32
    # MB).
    "lm": None,
}


class SphinxDecoder:
    """An `UtteranceDecoder` of American English by PocketSphinx; 50 to 60 MB, 0.3 s to
    create.
    """

    def __init__(self, language_model: Callable[[Decoder], NGramModel]) -> None:
        self._decoder = Decoder(**DECODER_OPTIONS)
        self._decoder.add_lm("prose", language_model(self._decoder))
        self._decoder.activate_search("prose")
        self._open = False

    def reset(self) -> None:
        """Reset the adaptation to voice and noise, so that none carries over to another
        session.
        """
        self.end_utterance()
        self._decoder.reinit_feat()

    def begin_utterance(self) -> None:
        """Open an utterance."""
        self._decoder.start_utt()
        self._open = True

    def decode(self, pcm: bytes) -> None:
        """Decode the next samples of the utterance."""
        self._decoder.process_raw(pcm, False, False)

    def end_utterance(self) -> None:
        """Close the utterance, if one is open."""
        if self._open:
            self._open = False
            self._decoder.end_utt()

    def words(self) -> tuple[Word, ...]:
        """Return the hypothesis without fillers (``<sil>``, ``++UM++``)."""
        return tuple(
            Word(
                # "read(2)" is the second pronunciation of "read".
                segment.word.partition("(")[0],
                segment.start_frame * _MS_PER_FRAME,
                (segment.end_frame + 1) * _MS_PER_FRAME,
            )
            for segment in self._decoder.seg() or ()
            if not segment.word.startswith(("<", "[", "+"))
        )


class RecognitionJob:
    """One stream: PCM in, transcripts out, with a decoder of ``free``, or a new one."""

    def __init__(
        self,
        free: list[SphinxDecoder],
        new: Callable[[], SphinxDecoder],
        pause_ms: int,
        *,
        telephone: bool,
    ) -> None:
        self._extension = BandwidthExtension() if telephone else None
        self._free = free
        self._decoder = free.pop() if free else new()
        self._decoder.reset()
        self._decoding = SentenceDecoding(self._decoder, pause_ms)

    def feed_payload(self, payload: bytes) -> Iterator[bytes]:
        """Decode the next samples."""
        pcm = payload if self._extension is None else self._extension.push_audio(payload)
        return map(encode_transcript, self._decoding.push_audio(pcm))

    def finish_input(self) -> Iterator[bytes]:
        """Close the last sentence."""
        return map(encode_transcript, self._decoding.finish_audio())

    def close(self) -> None:
        """Return the decoder to ``free``."""
        self._free.append(self._decoder)


def main() -> None:
    """Serve recognition until the parent closes the connection."""
    parser = argparse.ArgumentParser(
        description="recognise streams for a voicechat server (frames on stdin and stdout)"
    )
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--pause-ms", type=int, required=True)
    parser.add_argument("--niceness", type=int, required=True)
    options = parser.parse_args()

    def load() -> Callable[[bytes], RecognitionJob]:
        loaded: list[NGramModel] = []

        def language_model(decoder: Decoder) -> NGramModel:
            if not loaded:
                loaded.append(
                    NGramModel(
                        decoder.config, decoder.logmath, get_model_path("en-us/en-us.lm.bin")
                    )
                )
            return loaded[0]

        new = partial(SphinxDecoder, language_model)
        free = [new() for _ in range(options.streams)]
        return lambda wanted: RecognitionJob(
            free, new, options.pause_ms, telephone=wanted == TELEPHONE
        )

    serve(load, niceness=options.niceness)


if __name__ == "__main__":
    main()
