"""A WebSocket gateway for stateful models on Amazon SageMaker."""

from importlib.metadata import version

__version__ = version("session-gateway")
