"""How much of the microphone's sound is echo: the reply itself, as the loudspeaker
plays it.

The server knows the reply's samples and roughly when they are played; the microphone
receives them 50 to 400 ms later, softer and coloured by the room. There are two steps,
both at a rate of 4 kHz, which holds most of the power of speech and little noise:

- *Delay*: the peak of the cross-correlation (with phase transform, Knapp and Carter,
  "The generalized correlation method for estimation of time delay", IEEE Trans. ASSP
  24:4, 1976) of the last half second of the microphone with the audio that was played
  before. Unrelated sounds have a highest peak, too, so the delay is accepted only if
  the microphone's sound is then coherent with the reply.
- *Share*: with the reply shifted by that delay, the magnitude-squared coherence of both
  in each frequency, averaged over about 200 ms; the coherent part of the microphone's
  power is echo ("coherent output power", Bendat and Piersol, "Engineering Applications
  of Correlation and Spectral Analysis", 1980).

A user who talks over the echo is louder than it (echo arrives 10 to 25 dB below the
reply) and coherent with nothing, so the share falls with their first frames.
"""

import math
from collections import deque
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from voicechat.voice.silero import FRAME_BYTES, FRAME_MS

Floats: TypeAlias = NDArray[np.float32]
Spectrum: TypeAlias = NDArray[np.complexfloating[Any, Any]]

_KHZ = 4
_FRAME = FRAME_MS * _KHZ
_WINDOW = 2 * _FRAME
_HEARD = 16 * _FRAME
"""The microphone samples that the search for the delay uses: 512 ms."""
MAX_DELAY_MS = 480
"""The range of the delay from the estimated time of playback to the microphone:
network, the player's buffer, loudspeaker, air.
"""
_LAGS = MAX_DELAY_MS * _KHZ
_PLAYED = 8_192 * _KHZ
"""The reply samples that are kept, 8 s: audio that may wait ahead of playback, and the
audio that the search needs.
"""
_UNWRITTEN_BYTES = 32_000
"""The most reply audio that waits to be decimated: 1 s. A reply whose echo is never
computed is so decimated in a few large pieces, which is cheap.
"""
_JITTER = 40 * _KHZ
"""A shorter gap in the estimated times is an error of the estimate: players play
without gaps.
"""
_BINS = slice(8, 122)
"""125 Hz to 1900 Hz in steps of 15.6 Hz: the range in which speech and small
loudspeakers have most of their power.
"""
_MEMORY = 0.75
"""Weight of the past in the spectra: for a steady sound this averages 7 frames."""
_LONELY = 0.99
"""When a single frame makes up this much of the average, the share is unknown."""
_RECOUNTED = 14
"""The frames of the past with which a share begins: all whose windows lie in the
samples that are kept.
"""
_WEIGHTS = (_MEMORY ** np.arange(_RECOUNTED - 1, -1, -1)).astype(np.float32)
_HANN = (np.hanning(_WINDOW) * _WINDOW).astype(np.float32)
"""The window includes the factor by which the transforms divide: without a division
numpy would compute in float64.
"""
_SEARCH_SIZE = 4_096
_SEARCH_BINS = slice(128, 1_948)
"""125 Hz to 1900 Hz in the search's spectra: outside this range whitening would only
amplify noise.
"""
_WHITENING = np.float32(0.8)
"""1 is the phase transform, 0 plain correlation. A value between them gives faint
frequencies less weight than loud ones.
"""
_CLEAR_PEAK = 6.0
"""A delay is tried when its correlation exceeds this many standard deviations."""
_BELIEVED = 0.5
"""A delay is accepted when this part of the newest frame is then echo."""
_THINNED_BYTES = 8
"""The bytes at 16 kHz that become one sample: four samples."""
_MEAN = np.full(4, 1 / (4 * 32768), np.float32)
_CHECKED_FIRST = 16
_CHECKED_FRAMES = 64
"""The delay is searched again after 16 frames of echo, and then every 64 frames (2 s):
a delay found from the first frames of a vowel may be wrong by a period of the voice; a
search over half a second of speech is not.
"""
_NOTHING = np.float32(1e-9)
"""Prevents a division by zero in silence."""


class EchoDetector:
    """The echo of one session. Takes the reply's audio and the microphone's frames,
    returns the share of echo.

    It computes only when asked. It keeps 8 s of the reply (64 KB) and half a second of
    the microphone. Times are milliseconds of the session; the times of playback and of
    the microphone must agree to within ± 200 ms.
    """

    def __init__(self) -> None:
        self._played = np.zeros(_PLAYED, np.float16)
        """The reply at 4 kHz, as a ring. Half precision: its errors are 66 dB below the
        samples, and it saves 64 KB of a session's 360.
        """
        self._written_to = 0
        """The end of the samples in ``_played``, in samples of the session."""
        self._unwritten = bytearray()
        """The reply's audio after ``_written_to``, not decimated yet."""
        self._heard: Floats = np.zeros(_HEARD, np.float32)
        self._unthinned: deque[bytes] = deque(maxlen=_HEARD // _FRAME)
        """The microphone's frames after ``_heard``, not decimated yet."""
        self._heard_to = 0
        self._delay: int | None = None
        self._uncounted = _RECOUNTED
        """The microphone's frames that are not in the spectra yet."""
        self._spectra = _Spectra()
        self._explained = 0
        """Frames of echo since the delay was found."""

    def played(self, pcm: bytes, at_ms: int) -> None:
        """Take audio of the reply, ``pcm`` (s16le mono 16 kHz), whose playback is
        estimated to begin at ``at_ms``.

        Calls come in the order of playback. Audio that overlaps the previous call is
        placed after it; a gap of more than 40 ms is silence.
        """
        begin = at_ms * _KHZ
        if begin >= self._played_to + _JITTER:
            self._write()
            self._unwritten.clear()
            silence = min(begin - self._written_to, _PLAYED)
            self._put(begin - silence, np.zeros(silence, np.float32))
            self._written_to = begin
        self._unwritten += pcm
        if len(self._unwritten) > _UNWRITTEN_BYTES:
            self._write()

    def stopped(self, at_ms: int) -> None:
        """The reply was cut off: nothing of it is played after ``at_ms``."""
        self._write()
        self._written_to = min(self._written_to, max(0, at_ms * _KHZ))

    @property
    def delay_ms(self) -> float | None:
        """The delay from the estimated time of playback to the microphone; None while
        it is unknown.
        """
        return None if self._delay is None else self._delay / _KHZ

    def heard(self, frame: bytes, end_ms: int) -> None:
        """Take the next 32 ms of the microphone, which end at ``end_ms``."""
        if len(frame) != FRAME_BYTES:
            raise ValueError(f"a frame is {FRAME_BYTES} bytes, not {len(frame)}")
        end = end_ms * _KHZ
        if end == self._heard_to + _FRAME:
            self._uncounted = min(self._uncounted + 1, _RECOUNTED)
        else:  # the sound before this frame is unknown
            self._unthinned.clear()
            self._heard[:] = 0
            self._uncounted = _RECOUNTED
        self._unthinned.append(frame)
        self._heard_to = end

    def share(self) -> float:
        """Return how much of the newest frame is echo, 0 to 1; 0 while the delay is
        unknown.
        """
        if self._delay is None:
            return 0.0
        self._catch_up()
        if self._uncounted == _RECOUNTED:
            self._spectra = _Spectra()
        self._count(self._spectra, self._uncounted, self._delay)
        self._uncounted = 0
        share = self._spectra.share
        if share > _BELIEVED:
            self._explained += 1
            if self._explained % _CHECKED_FRAMES == _CHECKED_FIRST:
                share = max(share, self.find())
        return share

    def find(self) -> float:
        """Search for a better delay. Return the newest frame's share of echo with the
        new delay; 0 if none was accepted. Takes 0.1 ms.

        Call `share` with the known delay first.
        """
        self._catch_up()
        delay = self._likely_delay()
        if delay is None or (self._delay is not None and abs(delay - self._delay) <= _KHZ):
            return 0.0
        spectra = _Spectra()
        self._count(spectra, _RECOUNTED, delay)
        if spectra.share <= max(_BELIEVED, self._spectra.share):
            return 0.0
        self._delay, self._spectra, self._uncounted, self._explained = delay, spectra, 0, 0
        return spectra.share

    @property
    def _played_to(self) -> int:
        """The end of the reply's samples, in samples of the session."""
        return self._written_to + len(self._unwritten) // _THINNED_BYTES

    def _catch_up(self) -> None:
        """Decimate the audio that has come since the last call."""
        self._write()
        if self._unthinned:
            heard = _thin(b"".join(self._unthinned))
            self._unthinned.clear()
            self._heard[: -len(heard)] = self._heard[len(heard) :]
            self._heard[-len(heard) :] = heard

    def _write(self) -> None:
        """Decimate the reply. Samples at its end that do not fill a sample of 4 kHz
        stay.
        """
        whole = len(self._unwritten) - len(self._unwritten) % _THINNED_BYTES
        samples = _thin(bytes(self._unwritten[:whole]))
        del self._unwritten[:whole]
        self._written_to += len(samples)
        kept = samples[-_PLAYED:]
        self._put(self._written_to - len(kept), kept)

    def _put(self, begin: int, samples: Floats) -> None:
        at = begin % _PLAYED
        first = min(len(samples), _PLAYED - at)
        self._played[at : at + first] = samples[:first]
        self._played[: len(samples) - first] = samples[first:]

    def _get(self, end: int, length: int) -> Floats:
        """Return the reply's last ``length`` samples before ``end``; silence where
        nothing was played.
        """
        beyond = min(max(0, end - self._played_to), length)
        at = (end - length) % _PLAYED
        known = length - beyond
        if beyond == 0 and at + length <= _PLAYED:
            return self._played[at : at + length].astype(np.float32)
        first = min(known, _PLAYED - at)
        parts = (
            self._played[at : at + first],
            self._played[: known - first],
            np.zeros(beyond, np.float32),
        )
        return np.concatenate(parts, dtype=np.float32)

    def _likely_delay(self) -> int | None:
        """Return the delay with the highest correlation of microphone and reply; None
        if the peak is not clear.
        """
        reply = self._get(self._heard_to, _HEARD + _LAGS)
        cross = np.conj(np.fft.rfft(reply, _SEARCH_SIZE)[_SEARCH_BINS])
        cross *= np.fft.rfft(self._heard, _SEARCH_SIZE)[_SEARCH_BINS]
        cross /= np.abs(cross) ** _WHITENING + _NOTHING
        whitened = np.zeros(_SEARCH_SIZE // 2 + 1, np.complex64)
        whitened[_SEARCH_BINS] = cross
        correlation = np.fft.irfft(whitened, _SEARCH_SIZE)
        # The microphone's samples begin _LAGS samples after the reply's: a delay of d
        # is at d - _LAGS, which wraps around.
        lags = np.concatenate((correlation[-_LAGS:], correlation[:1]))
        best = int(np.argmax(lags))
        # Without frequencies below 125 Hz the mean is 0, and the deviation the root of
        # the power.
        deviation = math.sqrt(np.dot(lags, lags) / len(lags))
        return best if lags[best] > _CLEAR_PEAK * deviation else None

    def _count(self, spectra: "_Spectra", frames: int, delay: int) -> None:
        """Add the windows of the newest ``frames`` to the spectra."""
        both = np.empty((2, frames, _WINDOW), np.float32)
        length = (frames + 1) * _FRAME
        aligned = (self._heard[-length:], self._get(self._heard_to - delay, length))
        for windows, samples in zip(both, aligned, strict=True):
            pieces = samples.reshape(-1, _FRAME)
            np.multiply(pieces[:-1], _HANN[:_FRAME], out=windows[:, :_FRAME])
            np.multiply(pieces[1:], _HANN[_FRAME:], out=windows[:, _FRAME:])
        spectra.add(np.fft.rfft(both, norm="forward")[:, :, _BINS])


class _Spectra:
    """What the microphone and the reply, shifted by a delay, have in common."""

    __slots__ = ("_power", "_products", "_squares")

    def __init__(self) -> None:
        self._products: Spectrum = np.zeros((2, _BINS.stop - _BINS.start), np.complex64)
        """The spectra of the microphone and of the reply, each multiplied by the
        conjugate of the reply's: the cross spectrum, and the reply's power.
        """
        self._power = 0.0
        self._squares = 0.0
        """The weighted sums of the microphone's powers per frame, and of their
        squares.
        """

    def add(self, spectra: Spectrum) -> None:
        """Add the next frames to the average, oldest first: spectra of the microphone
        and of the reply [2, frames, bins].
        """
        frames = spectra.shape[1]
        weights = _WEIGHTS[-frames:]
        self._products *= _MEMORY**frames
        self._products += (spectra * (spectra[1].conj() * weights[:, np.newaxis])).sum(axis=1)
        powers = np.square(np.abs(spectra[0])).sum(axis=1)
        self._power = self._power * _MEMORY**frames + float(weights @ powers)
        self._squares = self._squares * _MEMORY ** (2 * frames) + float(
            np.square(weights) @ np.square(powers)
        )

    @property
    def share(self) -> float:
        """The coherent part of the microphone's power, 0 to 1; 0 while a single frame
        makes up most of that power.
        """
        # In n equal frames, unrelated sounds have an apparent coherence of 1/n. Frames
        # are weighted by their power.
        bias = self._squares / self._power**2 if self._power else 1.0
        if bias > _LONELY:
            return 0.0
        cross = self._products[0]
        coherent = float(np.vdot(cross, cross / (self._products[1].real + _NOTHING)).real)
        return min(max((coherent / self._power - bias) / (1 - bias), 0.0), 1.0)


def _thin(pcm: bytes) -> Floats:
    """Convert s16le at 16 kHz to floats at 4 kHz. The mean of four samples is a
    sufficient low-pass filter for comparing speech with speech.
    """
    return np.frombuffer(pcm, "<i2").astype(np.float32).reshape(-1, _THINNED_BYTES // 2) @ _MEAN
