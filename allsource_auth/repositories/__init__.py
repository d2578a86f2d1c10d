"""The repositories, and what they are built from: streams, plans, claims, lists and sweeps."""
