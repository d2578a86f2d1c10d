"""What is promised of every store, run unchanged on each of them."""
