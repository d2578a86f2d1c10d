"""Users and sessions against a plain model, under random sequences of operations."""
