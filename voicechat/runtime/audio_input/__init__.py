"""Decoding, placing and listening to a client's audio; see ``AudioInput``."""

from voicechat.runtime.audio_input.echo_gate import EchoGate
from voicechat.runtime.audio_input.input import AudioInput
from voicechat.runtime.audio_input.recognition_streams import shifted
from voicechat.runtime.audio_input.vad_stream import Detector

__all__ = ["AudioInput", "Detector", "EchoGate", "shifted"]
