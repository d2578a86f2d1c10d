"""Bodies of error replies: those of Core, and the page of a gateway that quotes the request."""

from __future__ import annotations

import json

from tests.store.allsource.local import KEY
from tests.support.canaries import email, token

__all__ = ["ADMISSION", "PAGE", "UNCERTAIN", "error_body"]

PAGE = f"<html><body>Bad gateway: {email('Ada')} {token('a')} {KEY}</body></html>".encode()
ADMISSION = b'{"error":"Queue full: Conditional archive admission capacity exhausted"}'
UNCERTAIN = b'{"error":"Queue full: Conditional archive deadline exceeded; the outcome is uncertain"}'


def error_body(**members: object) -> bytes:
    return json.dumps(members).encode()
