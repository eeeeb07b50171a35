"""Defaults of the original document, shared by its conversation socket and its REST
endpoints.
"""

from voicechat.session.types import InputSettings, Settings, VoiceSettings

DOCUMENT_VOICE = VoiceSettings(
    model="cosyvoice-v1", voice="longxiaochun", format="MP3_22050HZ_MONO_256KBPS"
)
DOCUMENT_SETTINGS = Settings(input=InputSettings(format="wav"), voice=DOCUMENT_VOICE)
"""The settings of a conversation before its client has changed any."""
