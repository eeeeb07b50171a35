"""Streaming demuxers of compressed audio: bytes in, whole packets out.

They are pure Python, so that untrusted input is checked and bounded without C code;
codecs receive whole packets only. The packets do not depend on how the bytes are split.
"""
