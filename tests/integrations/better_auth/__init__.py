"""The integration with ``better_auth``."""
