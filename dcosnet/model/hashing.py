"""Hashes that other systems chose, to the bit: Erlang's phash2 of a binary and zbase32."""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
# Erlang seeds the hash of a binary with the golden ratio times 13 (erts, make_hash2).
_BINARY_SEED = _GOLDEN * 13 & _MASK

_ZBASE32 = "ybndrfg8ejkmcpqxot1uwisza345h769"


def phash2(data: bytes, limit: int = 1 << 32) -> int:
    """
    What `erlang:phash2(Binary, Limit)` gives, 0 <= result < limit.

    Bob Jenkins's hash of 1996 over 12-byte blocks, little endian, the tail's
    last word shifted by a byte to leave room for the length. Without a limit
    this is the full 32 bits; Erlang's phash2/1 is `phash2(data, 1 << 27)`.
    """
    if not data:
        return _BINARY_SEED % limit  # Erlang does not mix for an empty binary
    a = b = _GOLDEN
    c = _BINARY_SEED
    whole = len(data) - len(data) % 12
    for start in range(0, whole, 12):
        a = a + int.from_bytes(data[start : start + 4], "little") & _MASK
        b = b + int.from_bytes(data[start + 4 : start + 8], "little") & _MASK
        c = c + int.from_bytes(data[start + 8 : start + 12], "little") & _MASK
        a, b, c = _mix(a, b, c)
    tail = data[whole:]
    a = a + int.from_bytes(tail[:4], "little") & _MASK
    b = b + int.from_bytes(tail[4:8], "little") & _MASK
    c = c + len(data) + (int.from_bytes(tail[8:], "little") << 8) & _MASK
    return _mix(a, b, c)[2] % limit


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = (a - b - c & _MASK) ^ (c >> 13)
    b = (b - c - a & _MASK) ^ (a << 8 & _MASK)
    c = (c - a - b & _MASK) ^ (b >> 13)
    a = (a - b - c & _MASK) ^ (c >> 12)
    b = (b - c - a & _MASK) ^ (a << 16 & _MASK)
    c = (c - a - b & _MASK) ^ (b >> 5)
    a = (a - b - c & _MASK) ^ (c >> 3)
    b = (b - c - a & _MASK) ^ (a << 10 & _MASK)
    c = (c - a - b & _MASK) ^ (b >> 15)
    return a, b, c


def zbase32(data: bytes) -> str:
    """The z-base-32 text of `data`: most significant bit first, zero-padded, no padding characters."""
    bits = len(data) * 8
    padding = -bits % 5
    number = int.from_bytes(data, "big") << padding
    return "".join(_ZBASE32[number >> shift & 31] for shift in range(bits + padding - 5, -1, -5))
