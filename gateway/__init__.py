"""A WebSocket gateway for stateful models on Amazon SageMaker.

::

    from gateway import Settings, create_app

    app = create_app(Settings.load("gateway.toml"))  # an ASGI application

The Python client is `gateway.client`.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__all__ = ["ConfigError", "Settings", "__version__", "create_app"]

__version__ = version("session-gateway")

if TYPE_CHECKING:
    from gateway.config import ConfigError, Settings
    from gateway.embedding import create_app
else:

    def __getattr__(name: str) -> Any:
        # Imported when asked for: the client and the protocol's codecs need nothing of all that.
        modules = {
            "ConfigError": "gateway.config",
            "Settings": "gateway.config",
            "create_app": "gateway.embedding",
        }
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)
