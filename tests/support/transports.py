"""Which transport the tests of the adapter call SageMaker with."""

from typing import Literal

BOTH = ("lean", "aiobotocore")

chosen: Literal["lean", "aiobotocore"] = "lean"
"""Set by the fixture of ``tests/contract``, which runs each of them with both."""
