"""The wire protocol, version 1: message types and codecs. ``PROTOCOL.md`` specifies it."""
