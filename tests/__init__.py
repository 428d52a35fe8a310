"""The tests. A package, so that they can share what is in ``tests.support``."""
