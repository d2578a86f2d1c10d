"""The integration with ``fastapi-better-auth-bridge``."""
