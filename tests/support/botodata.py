"""Lets all of a process's sessions of botocore read its data files but once: a megabyte of JSON and
the names of four hundred folders, which each would read for itself.
"""

from functools import cache

import botocore.session
from botocore.loaders import create_loader

_loader = cache(create_loader)


def share_data() -> None:
    """From now on, sessions of this process have one loader, which keeps what it has read."""
    botocore.session.create_loader = _loader  # type: ignore[attr-defined]


def read_data() -> None:
    """Read what a client of SageMaker Runtime needs, so that processes that are forked have it."""
    loader = _loader(None)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data_with_path(name)
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("sagemaker-runtime", kind, api_version=None)
