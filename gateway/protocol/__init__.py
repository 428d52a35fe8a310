"""The wire protocol, version 1: message types and codecs. Its text is ``PROTOCOL.md`` here."""
