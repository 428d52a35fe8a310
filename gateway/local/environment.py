"""The environment variables of the local SageMaker and of its callers."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def apart_from_aws(**given: str) -> Iterator[None]:
    """Isolate botocore from this machine's AWS configuration and proxies.

    Args:
        given: Environment variables to set instead.
    """
    ours = {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "127.0.0.1,localhost",
        **given,
    }
    theirs = {name: value for name, value in os.environ.items() if _is_about_calls(name)}
    for name in theirs:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(theirs)


def _is_about_calls(name: str) -> bool:
    name = name.upper()
    return name.startswith(("AWS_", "BOTO")) or name.endswith(("_PROXY", "_CA_BUNDLE"))
