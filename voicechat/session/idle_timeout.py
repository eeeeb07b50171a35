"""Ends a session without messages, or without speech while it is the user's turn."""

from voicechat.session.limits import SessionLimits


class IdleTimeout:
    """Two timers: since the client's last message, and since the user's last speech."""

    def __init__(self, limits: SessionLimits) -> None:
        self._limits = limits
        self._last_alive_ms = 0
        self._last_speech_ms = 0

    def note_message(self, now_ms: int) -> None:
        """A message of the client, or a sign of life such as a pong, has arrived."""
        self._last_alive_ms = max(self._last_alive_ms, now_ms)

    @property
    def last_speech_ms(self) -> int:
        """When the user last spoke, or their turn last began."""
        return self._last_speech_ms

    def note_speech(self, now_ms: int) -> None:
        """The user spoke, or their turn begins now."""
        self._last_speech_ms = now_ms

    def deadline_ms(self, *, must_speak: bool, heard_ms: int = 0) -> int:
        """Return when ``expired_reason`` may first return a reason. ``must_speak``: it
        is the user's turn, and messages alone do not keep the session alive.

        ``heard_ms`` is when the last reply has been played to its end: before that the
        user is not expected to speak.
        """
        silent_ms = self._last_alive_ms + self._limits.idle_ms
        return min(silent_ms, self._speech_due_ms(heard_ms)) if must_speak else silent_ms

    def expired_reason(self, now_ms: int, *, must_speak: bool, heard_ms: int = 0) -> str:
        """Return why the client counts as absent; empty: it does not. See
        ``deadline_ms``.
        """
        limits = self._limits
        if now_ms >= self._last_alive_ms + limits.idle_ms:
            return f"no message for {limits.idle_ms // 1000} s"
        if must_speak and now_ms >= self._speech_due_ms(heard_ms):
            return f"no speech for {limits.speech_idle_ms // 1000} s"
        return ""

    def _speech_due_ms(self, heard_ms: int) -> int:
        return max(self._last_speech_ms, heard_ms) + self._limits.speech_idle_ms
