"""Recognises audio containers by their first bytes, and content that must never reach a
decoder.
"""

from voicechat.audio.demux import adts, mpeg
from voicechat.audio.demux.framed import FrameFormat, FrameHead
from voicechat.audio.demux.stream import StreamStart
from voicechat.audio.riff import SIGNATURE_BYTES as CLIP_BYTES
from voicechat.audio.riff import may_be_clip
from voicechat.errors import Fault, RemoteProtocolError

SIGNATURE_BYTES = 4096
"""The number of first bytes that suffices for every check; fewer may suffice."""

_CONTAINERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"OggS", "opus or speex"),
    (0, b"\x1a\x45\xdf\xa3", "webm"),
    (0, b"fLaC", "flac"),
    (0, b"#!AMR", "amr"),
    (0, b"ID3\x02", "mp3"),
    (0, b"ID3\x03", "mp3"),
    (0, b"ID3\x04", "mp3"),
    (0, b"APETAGEX", "mp3"),
    (4, b"ftyp", "mp4"),
    (4, b"styp", "mp4"),
    (4, b"moov", "mp4"),
    (8, b"AIFF", ""),
    (8, b"AIFC", ""),
    (0, b"caff", ""),
    (0, b".snd", ""),
    (0, b"FLV\x01", ""),
    (0, bytes.fromhex("3026b2758e66cf11a6d9"), ""),
    (0, b"riff\x2e\x91\xcf\x11", ""),
    (0, b"Creative Voice File", ""),
    (0, b"RIFX", ""),
    (8, b"AVI LIST", ""),
    (0, b"\x00\x00\x01\xba", ""),
    (0, b".RMF\x00\x00\x00", ""),
    (0, b".SoX", ""),
    (0, b"XoS.", ""),
    (0, b"NIST_1A\n", ""),
    (0, b"TTA1", ""),
    (0, b"nut/multimedia container", ""),
    (0, b"wvpk", ""),
    (0, b"MAC ", ""),
    (0, b"\x7f\xfe\x80\x01", ""),  # DTS
)
"""Offset, signature, and the names under which a stream of it may be declared."""
_TS_PACKET_BYTES = 188


def _read_ts_head(head: bytes) -> FrameHead | None:
    """Parse the head of an MPEG transport stream packet (ISO/IEC 13818-1, 2.4.3.2).

    All packets have the same length. A damaged, scrambled or empty packet does not
    begin a recording.
    """
    is_whole = head[0] == 0x47 and not head[1] & 0x80
    holds_something = head[3] & 0x30 and not head[3] & 0xC0
    return (_TS_PACKET_BYTES, None) if is_whole and holds_something else None


_LAYER_2_KBPS = {
    3: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_LAYER_2_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000)}
_AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_RATES_HZ = (48000, 44100, 32000)
_FIRST_EAC3 = 11
"""The bitstream versions from here on are those of E-AC-3."""


def _read_layer_2_head(head: bytes) -> FrameHead | None:
    """Parse the head of a frame of MPEG audio layer II (ISO/IEC 11172-3, 13818-3)."""
    bits = int.from_bytes(head, "big")
    version, layer, bitrate, rate = bits >> 19 & 3, bits >> 17 & 3, bits >> 12 & 15, bits >> 10 & 3
    if bits >> 21 != 0x7FF or layer != 2 or version not in _LAYER_2_KBPS:
        return None
    if not 1 <= bitrate <= 14 or rate == 3:
        return None
    bitrate_bps = _LAYER_2_KBPS[version][bitrate - 1] * 1000
    return 144 * bitrate_bps // _LAYER_2_RATES_HZ[version][rate] + (bits >> 9 & 1), None


def _read_ac3_head(head: bytes) -> FrameHead | None:
    """Parse the head of a frame of AC-3 or E-AC-3 (ATSC A/52, 5.4.1, E.2.3.1)."""
    if head[:2] != b"\x0b\x77":
        return None
    if head[5] >> 3 >= _FIRST_EAC3:
        return 2 * (int.from_bytes(head[2:4], "big") & 0x7FF) + 2, None
    rate, size = head[4] >> 6, head[4] & 63
    if rate == 3 or size // 2 >= len(_AC3_KBPS):
        return None
    # 1,536 samples a frame; at 44.1 kHz every other one is a word longer.
    words = _AC3_KBPS[size // 2] * 1000 * 1536 // 16 // _AC3_RATES_HZ[rate]
    return 2 * (words + (size & 1 if rate == 1 else 0)), None


def _read_loas_head(head: bytes) -> FrameHead | None:
    """Parse the head of a frame of AAC in LOAS (ISO/IEC 14496-3, 1.7.2)."""
    bits = int.from_bytes(head, "big")
    return ((bits & 0x1FFF) + 3, None) if bits >> 13 == 0x2B7 else None


_FRAMINGS: tuple[tuple[FrameFormat, str], ...] = (
    (mpeg.FRAMING, "mp3"),
    (adts.FRAMING, "aac"),
    (FrameFormat("ts", StreamStart("ts"), 4, _read_ts_head), ""),
    (FrameFormat("mp2", StreamStart("mp2"), 4, _read_layer_2_head), ""),
    (FrameFormat("ac3", StreamStart("ac3"), 6, _read_ac3_head), ""),
    (FrameFormat("loas", StreamStart("loas"), 3, _read_loas_head), ""),
)

_PAGES = (
    *(b"<", b"{", b"[", b"#ext", b"ffconcat", b"v=0", b"%pdf"),
    *(b"http:", b"https:", b"file:", b"rtsp:"),
)
"""Starts of web pages, data, playlists and lists of addresses, in lower case."""
_TEXT_BYTES = 64
_NO_TEXT = bytes(range(9)) + bytes(range(14, 32))
"""Control characters that occur in samples but not in texts."""
_ARCHIVES: tuple[tuple[int, bytes], ...] = (
    (0, b"%PDF-"),
    (0, b"PK\x03\x04"),
    (0, b"PK\x05\x06"),
    (0, b"\x1f\x8b\x08"),
    (0, b"BZh"),
    (0, b"\xfd7zXZ\0"),
    (0, b"7z\xbc\xaf\x27\x1c"),
    (0, b"Rar!\x1a\x07"),
    (0, b"\x28\xb5\x2f\xfd"),
    (0, b"\x04\x22\x4d\x18"),
    (257, b"ustar"),
    (0, b"GIF8"),
    (0, b"\x89PNG"),
    (0, b"\xff\xd8\xff\xe0"),
    (0, b"\xff\xd8\xff\xe1"),
    (0, b"\x7fELF"),
    (0, b"MZ\x90\0"),
)
_BOMS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def known_container(start: bytes) -> str | None:
    """Recognise a container by its first bytes; None if they may be raw samples.

    Returns the format names under which a stream of it may be declared, or an empty
    string if it is only supported as a whole recording.
    """
    if len(start) >= CLIP_BYTES and may_be_clip(start):
        return "wav"
    for offset, magic, names in _CONTAINERS:
        if start.startswith(magic, offset):
            return names
    for framing, names in _FRAMINGS:
        if _is_framed(start, framing):
            return names
    return None


def check_start(name: str, start: bytes) -> None:
    """Check that a stream declared as ``name`` does not begin like another container.

    Raises ``RemoteProtocolError`` (``UNDECODABLE_AUDIO``) with the correct name.
    """
    found = known_container(start)
    if found is None or name in found.split(" or "):
        return
    advice = f"declare format {found}" if found else "send it as a whole recording"
    raise RemoteProtocolError(
        Fault.UNDECODABLE_AUDIO, f"{name}: the audio is something else; {advice}"
    )


def is_refused(start: bytes) -> bool:
    """Whether a file with these first bytes is a page, an archive, a playlist, an image
    or a program.

    A playlist would make a decoder fetch other addresses. The decoder decides about all
    other content.
    """
    if any(start.startswith(magic, offset) for offset, magic in _ARCHIVES):
        return True
    text = _text(start).lstrip().lower()
    return text.startswith(_PAGES) and not set(text[:_TEXT_BYTES]) & set(_NO_TEXT)


def _is_framed(start: bytes, framing: FrameFormat) -> bool:
    """Whether two consecutive frames of a codec match. One alone may be chance."""
    if len(start) < framing.head_bytes:
        return False
    first = framing.read_head(start[: framing.head_bytes])
    if first is None:
        return False
    second = start[first[0] : first[0] + framing.head_bytes]
    return len(second) == framing.head_bytes and framing.read_head(second) is not None


def _text(start: bytes) -> bytes:
    for mark, encoding in _BOMS.items():
        if start.startswith(mark):
            return start[len(mark) :].decode(encoding, "ignore").encode("utf-8", "ignore")
    return start
