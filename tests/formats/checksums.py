"""Checksums as the formats' documents define them, bit by bit."""


def crc(data: bytes, bits: int, polynomial: int) -> bytes:
    """The remainder of ``data`` by a polynomial of 8 or 16 bits, from 0."""
    value = 0
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
    return value.to_bytes(bits // 8, "big")
