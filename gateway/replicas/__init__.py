"""Gateways that share a store, so that any of them serves any session."""
