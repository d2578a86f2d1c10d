"""The integration with ``fastapi-users``."""
