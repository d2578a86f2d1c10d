"""The version of the package, as it is written into every event."""

__version__ = "0.2.0"
