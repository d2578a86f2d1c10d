"""Model-based tests: random sequences of operations on a store and on a model in plain Python."""
