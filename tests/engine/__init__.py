"""The engine below the repositories."""
