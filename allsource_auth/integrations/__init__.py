"""Interfaces for other packages: one module per package, each with its own extra. None is imported by default."""
