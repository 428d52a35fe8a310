"""Metrics and traces. Measurements are kept where they are made, see `gateway.measures` and
`gateway.tally`; this package reads, adds up and exposes them.
"""
