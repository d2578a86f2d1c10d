"""The library under frameworks: one module for each, imported only when asked for, with an extra of its own."""
