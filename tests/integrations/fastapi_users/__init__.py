"""fastapi-users on the store: its databases, and its whole flow over HTTP."""
