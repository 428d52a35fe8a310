"""``python -m gateway`` is the command ``session-gateway``."""

from gateway.cli import main

main()
