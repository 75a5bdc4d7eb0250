"""Reads and saves while a share of all responses is spoiled: nothing is lost or wrong, and nothing hangs."""
