"""What a file begins with: containers that are known, and what never reaches a
decoder.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.audio.formats import InputContainer
from voicechat.audio.signatures import check_start, is_refused, known_container
from voicechat.errors import RemoteProtocolError

PAGE = "<!DOCTYPE html><html><body>Not found</body></html>"
REFUSED = {
    "page": PAGE.encode(),
    "page after a line": b"\r\n  " + PAGE.encode(),
    "page with a mark of its encoding": b"\xef\xbb\xbf" + PAGE.encode(),
    "page in UTF-16": b"\xff\xfe" + PAGE.encode("utf-16-le"),
    "error in JSON": b'{"error": {"message": "no such key"}}',
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n",
    "playlist of addresses alone": b"http://127.0.0.1/a.mp3\nhttp://127.0.0.1/b.mp3\n",
    "playlist of WinAmp": b"[playlist]\nFile1=/etc/passwd\nNumberOfEntries=1\n",
    "list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "DASH": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "SDP": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\0",
    "zip": b"PK\x03\x04" + bytes(60),
    "gzip": b"\x1f\x8b\x08" + bytes(60),
    "tar": bytes(257) + b"ustar\x0000",
    "picture": b"GIF89a" + bytes(60),
    "program": b"\x7fELF" + bytes(60),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_recording_by_its_beginning_is_refused(name: str) -> None:
    assert is_refused(REFUSED[name])
    assert known_container(REFUSED[name]) is None


CONTAINERS = {
    "wav": b"RIFF\x24\0\0\0WAVEfmt ",
    "rf64": b"RF64\xff\xff\xff\xffWAVEds64",
    "mp3 with a tag": b"ID3\x04" + bytes(60),
    "mp3 with an APE tag": b"APETAGEX\xd0\x07\0\0" + bytes(60),
    "mp3": b"\xff\xfb\x90\x64" + bytes(200),
    "mp3 after an APE tag": b"APETAGEX\xd0\x07\0\0" + bytes(60),
    "aac": b"\xff\xf1P\x80" + bytes(60),
    "ogg": b"OggS\0\x02",
    "flac": b"fLaC",
    "amr": b"#!AMR\n",
    "amr-wb": b"#!AMR-WB\n",
    "flv": b"FLV\x01\x05",
    "m4a": b"\0\0\0\x20ftypM4A ",
    "3gp": b"\0\0\0\x14ftyp3gp4",
    "QuickTime": b"\0\0\0\x08skip\0\0\0\x20pnot",
    "a segment of mp4": b"\0\0\0\x18stypmsdh",
    "wma": bytes.fromhex("3026b2758e66cf11a6d9"),
    "aiff": b"FORM\0\0\0\x40AIFFCOMM",
    "caf": b"caff\0\x01\0\0desc",
    "w64": bytes.fromhex("726966662e91cf11a5d628db04c10000"),
    "au": b".snd\0\0\0\x18",
    "ts": 2 * (b"G\x40\x11\x10" + bytes(184)),
    "avi": b"RIFF\x24\0\0\0AVI LIST",
    "mpeg": b"\0\0\x01\xba\x21\0\x01",
    "real media": b".RMF\0\0\0\x12\0\x01",
    "sox": b".SoX\x1c\0\0\0",
    "sphere": b"NIST_1A\n   1024\n",
    "true audio": b"TTA1\x01\0",
    "nut": b"nut/multimedia container\0",
    "nothing": b"",
    "silence": bytes(64),
    "loud samples": b"<\x01{\x02<\x03" * 20,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_everything_else_is_the_decoders_to_judge(name: str) -> None:
    assert not is_refused(CONTAINERS[name])


SIGNED = sorted(name for name, start in CONTAINERS.items() if known_container(start) is not None)
ARCHIVES = ("document", "zip", "gzip", "tar", "picture", "program")


@given(st.sampled_from(SIGNED), st.binary(max_size=700))
def test_what_follows_a_signature_changes_nothing(name: str, rest: bytes) -> None:
    start = CONTAINERS[name]
    assert known_container(start + rest) == known_container(start)
    assert not is_refused(start + rest)


@given(st.sampled_from(ARCHIVES), st.binary(max_size=700))
def test_what_follows_the_signature_of_an_archive_changes_nothing(name: str, rest: bytes) -> None:
    assert is_refused(REFUSED[name] + rest)


@given(
    st.sampled_from(["", *SIGNED]).map(lambda name: CONTAINERS.get(name, b"")),
    st.binary(max_size=700),
)
def test_a_stream_is_let_through_under_the_names_of_what_it_begins_like(
    signature: bytes, rest: bytes
) -> None:
    start = signature + rest
    known = known_container(start)
    for container in InputContainer:
        if known is None or container.value in known.split(" or "):
            check_start(container.value, start)
        else:
            with pytest.raises(RemoteProtocolError, match=known or "a whole recording"):
                check_start(container.value, start)


@pytest.mark.parametrize(
    "name", ["ts", "avi", "mpeg", "real media", "sox", "sphere", "true audio", "nut"]
)
def test_containers_that_are_never_streamed_are_not_heard_as_samples(name: str) -> None:
    assert known_container(CONTAINERS[name]) == ""


def test_samples_that_look_like_one_transport_packet_are_samples() -> None:
    assert known_container(b"G\x40\x11\x10" + bytes(400)) is None
