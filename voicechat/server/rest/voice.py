"""``synthesis_param``: the voice settings of a request, validated field by field."""

from typing import Annotated

from voicechat.audio.formats import parse_output_format
from voicechat.errors import RemoteProtocolError
from voicechat.names import quoted
from voicechat.providers.interfaces import SpeechSynthesizer
from voicechat.schema.checked import RequestModel, between
from voicechat.schema.document import DOCUMENT_VOICE
from voicechat.server.response_notes import add_note
from voicechat.session.types import VoiceSettings

_DEFAULTS = DOCUMENT_VOICE


class SynthesisParam(RequestModel):
    """The document's table; a voice that the service does not have is replaced by its
    first one.
    """

    model: str = _DEFAULTS.model
    """The service's model; passed through."""
    voice: str = _DEFAULTS.voice
    """One of the service's voices."""
    format: str = _DEFAULTS.format
    """Such as MP3_16000HZ_MONO_128KBPS, WAV_16000HZ_MONO_16BIT, PCM_16000HZ_MONO_16BIT.
    """
    volume: Annotated[float, between(0, 100)] = _DEFAULTS.volume
    """Loudness."""
    speechRate: Annotated[float, between(0.5, 2)] = _DEFAULTS.speech_rate  # noqa: N815 - the document's name
    """Speed."""
    pitchRate: Annotated[float, between(0.5, 2)] = _DEFAULTS.pitch_rate  # noqa: N815 - the document's name
    """Pitch."""

    def settings(self, synthesizer: SpeechSynthesizer, path: str) -> VoiceSettings:
        """Return the settings for a service. Raises ``RemoteProtocolError`` whose
        message begins with ``path``.
        """
        try:
            parse_output_format(self.format)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(error.status, f"{path}.format: {error.message}") from error
        return VoiceSettings(
            model=self.model,
            voice=known_voice(
                synthesizer, self.voice, f"{path}.voice" if "voice" in self.model_fields_set else ""
            ),
            format=self.format,
            volume=self.volume,
            speech_rate=self.speechRate,
            pitch_rate=self.pitchRate,
        )


def known_voice(synthesizer: SpeechSynthesizer, wanted: str, path: str) -> str:
    """Return a voice that the service has: the wanted one, else its first.

    ``path`` is the parameter that named the voice; a note in the response says which
    one speaks instead. Empty: no voice was named.
    """
    voices = synthesizer.voices
    if wanted in voices or not voices:
        return wanted
    if path:
        add_note(f"{path}: {quoted(wanted)} is not known here; {quoted(voices[0])} speaks instead")
    return voices[0]
