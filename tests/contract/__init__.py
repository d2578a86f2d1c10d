"""The contract of all stores: these tests run unchanged on each of them."""
