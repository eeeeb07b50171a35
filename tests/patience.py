"""Settings of servers under test that share the machine with other tests."""

PATIENT = {
    "VOICECHAT_ADMISSION__UNQUESTIONED_SESSIONS": "1000000",
    "VOICECHAT_LIMITS__TRANSCRIPT_MS": "120000",
    "VOICECHAT_LIMITS__FIRST_TOKEN_MS": "120000",
    "VOICECHAT_LIMITS__BETWEEN_TOKENS_MS": "120000",
    "VOICECHAT_LIMITS__FIRST_AUDIO_MS": "120000",
    "VOICECHAT_LIMITS__BETWEEN_AUDIO_MS": "120000",
    "VOICECHAT_LIMITS__WRITE_MS": "120000",
}
"""For the environment: everybody is admitted, and a busy machine is no failure."""
