"""Seeing inside: metrics and traces. What is measured is kept where it happens, see
`gateway.measures` and `gateway.tally`; here it is read, put together and shown.
"""
