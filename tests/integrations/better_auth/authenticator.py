"""A passkey authenticator without a device: one P-256 key, no attestation."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["Authenticator"]

PRESENT, VERIFIED, WITH_KEY = 0x01, 0x04, 0x40


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Authenticator:
    """Responds to the options of a site, in the format of a browser."""

    def __init__(self, rp_id: str, origin: str) -> None:
        self._rp_id, self._origin = rp_id, origin
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._id = os.urandom(16)
        self._count = 0

    def _client_data(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self._origin, "crossOrigin": False}).encode()

    def _data(self, flags: int) -> bytes:
        return hashlib.sha256(self._rp_id.encode()).digest() + bytes([flags]) + self._count.to_bytes(4, "big")

    def register(self, options: dict[str, Any]) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        data = self._data(PRESENT | VERIFIED | WITH_KEY)
        data += bytes(16) + len(self._id).to_bytes(2, "big") + self._id + cbor2.dumps(cose)
        return self._credential(
            {
                "clientDataJSON": _text(self._client_data("webauthn.create", options["challenge"])),
                "attestationObject": _text(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
                "transports": ["internal"],
            }
        )

    def sign(self, options: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        data = self._data(PRESENT | VERIFIED)
        client = self._client_data("webauthn.get", options["challenge"])
        signature = self._key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._credential(
            {"clientDataJSON": _text(client), "authenticatorData": _text(data), "signature": _text(signature)}
        )

    def _credential(self, response: dict[str, Any]) -> dict[str, Any]:
        name = _text(self._id)
        return {
            "id": name,
            "rawId": name,
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }
