"""The defaults of the original document, which its conversation socket and its REST
endpoints share.
"""

from voicechat.session.vocabulary import InputSettings, Settings, VoiceSettings

DOCUMENT_VOICE = VoiceSettings(
    model="cosyvoice-v1", voice="longxiaochun", format="MP3_22050HZ_MONO_256KBPS"
)
DOCUMENT_SETTINGS = Settings(input=InputSettings(format="wav"), voice=DOCUMENT_VOICE)
"""Of a conversation whose client has not said anything about it."""
