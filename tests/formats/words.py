"""What the embedded recogniser understands of one utterance."""

from functools import cache

from pocketsphinx import NGramModel, get_model_path

from voicechat.providers.pocketsphinx_worker import SphinxDecoder


@cache
def _recogniser() -> SphinxDecoder:
    return SphinxDecoder(
        lambda of: NGramModel(of.config, of.logmath, get_model_path("en-us/en-us.lm.bin"))
    )


def words(pcm: bytes) -> str:
    """Recognise s16le mono 16 kHz."""
    recogniser = _recogniser()
    recogniser.reset()
    recogniser.begin_utterance()
    for at in range(0, len(pcm), 3200):
        recogniser.decode(pcm[at : at + 3200])
    recogniser.end_utterance()
    return " ".join(word.text for word in recogniser.words())
