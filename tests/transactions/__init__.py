"""Transactions and their overlay."""
