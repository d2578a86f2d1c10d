"""New ids: random UUIDs (version 4) as text.

The standard library builds an object with many checks for each; a sign-up makes four ids, and the text is all it needs.
"""

from __future__ import annotations

import os

__all__ = ["operation_id", "uuid_text"]


def operation_id() -> str:
    """32 hexadecimal digits."""
    random = bytearray(os.urandom(16))
    random[6] = random[6] & 0x0F | 0x40
    random[8] = random[8] & 0x3F | 0x80
    return random.hex()


def uuid_text() -> str:
    """The usual form, with hyphens."""
    digits = operation_id()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
