"""The one constant that all timeouts of the tests are multiples of."""

UNIT = 1.0
"""Seconds; what is quick takes far less, and only a broken test waits for it."""
