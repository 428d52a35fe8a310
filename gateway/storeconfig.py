"""Opens the configured session store."""

import contextlib
from collections.abc import AsyncIterator

from gateway.config import ConfigError, Settings
from gateway.measures import StoreMeasures
from gateway.session.storage import Store
from gateway.stores.memory import MemoryStore
from gateway.stores.sealing import SealingKeyError, sealer_of


@contextlib.asynccontextmanager
async def open_store(
    all_settings: Settings, measures: StoreMeasures | None = None
) -> AsyncIterator[Store]:
    """Open the store of sessions and tickets; it connects on first use.

    Args:
        all_settings: The settings of the store and its limits.
        measures: Counts commands to a shared store.

    Raises:
        ConfigError: A file of encryption keys can't be used.
    """
    settings = all_settings.store
    if settings.url is None:
        yield MemoryStore(record_bytes=all_settings.openai.memory_bytes)
        return
    file, password = settings.encryption_key_file, settings.password
    try:
        sealer = None if file is None else sealer_of(file)
    except SealingKeyError as error:
        raise ConfigError(str(error)) from None
    from gateway.stores.valkey import valkey_store  # noqa: PLC0415 - slow to import

    async with valkey_store(
        settings.url,
        password=None if password is None else password.get_secret_value(),
        ca_file=settings.ca_file,
        sealer=sealer,
        measures=measures,
    ) as shared:
        yield shared
