"""Formats of models' bodies: request templates, stream formats and the text in replies."""
