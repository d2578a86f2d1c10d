"""The packages that the integrations plug into, run as applications run them."""
