"""Transactions: several mutations as one."""
