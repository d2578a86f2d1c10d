"""Planted bugs: each removes one safeguard of the library, and the tests must fail with it."""
