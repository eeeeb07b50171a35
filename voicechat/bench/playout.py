"""Would a listener have heard a gap? A reply's audio against a player that begins with
the first piece.
"""

from voicechat.audio.formats import Container, parse_output_format


class Playout:
    """One reply, played without a buffer as its pieces come."""

    def __init__(self, output: str) -> None:
        """``output`` names the format; of one without a constant bit rate no lateness
        is known: 0.
        """
        wanted = parse_output_format(output)
        self._bytes_per_s = 0.0
        if wanted.container in (Container.PCM, Container.WAV):
            self._bytes_per_s = wanted.rate_hz * 2
        elif wanted.container is Container.MP3 and wanted.bitrate_bps is not None:
            self._bytes_per_s = wanted.bitrate_bps / 8
        self._runs_out_s = 0.0
        self.first_s: float | None = None
        """When the first piece came, on the clock of ``take``; None: none has."""
        self.late_ms = 0.0
        """The longest that the player had to wait for a piece."""

    def add_audio(self, payload: bytes, now_s: float) -> None:
        """The next piece has come."""
        if self.first_s is None:
            self.first_s = self._runs_out_s = now_s
        if not self._bytes_per_s:
            return
        self.late_ms = max(self.late_ms, (now_s - self._runs_out_s) * 1000)
        self._runs_out_s = max(self._runs_out_s, now_s) + len(payload) / self._bytes_per_s
