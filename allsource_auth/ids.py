"""Random UUIDs (version 4) as text.

Faster than ``uuid.uuid4``, which creates a validated object for each id. A sign-up needs four ids.
"""

from __future__ import annotations

import os

__all__ = ["operation_id", "uuid_text"]


def operation_id() -> str:
    """Return a new UUID as 32 hexadecimal digits, as in the metadata of events."""
    random = bytearray(os.urandom(16))
    random[6] = random[6] & 0x0F | 0x40
    random[8] = random[8] & 0x3F | 0x80
    return random.hex()


def uuid_text() -> str:
    """Return a new UUID in its usual form, with hyphens."""
    digits = operation_id()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
