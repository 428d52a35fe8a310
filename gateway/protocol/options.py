"""The options of InvokeEndpoint besides a body, declared once.

Clients set them in ``message.send``, and routes set defaults; they are part of the model's request,
and become parameters of the call. They have the same names everywhere.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, get_args

from msgspec import UNSET, Meta, UnsetType

from gateway.protocol.discretion import Discreet

HeaderText = Annotated[str, Meta(min_length=1, max_length=1024)]
"""Must be printable ASCII, which the codecs check."""


class CallOptions(Discreet, frozen=True, kw_only=True, gc=False):
    """The options of one call; ``UNSET`` means the route's default, or none."""

    content_type: HeaderText | UnsetType = UNSET
    accept: HeaderText | UnsetType = UNSET
    custom_attributes: HeaderText | UnsetType = UNSET
    inference_id: HeaderText | UnsetType = UNSET
    target_model: HeaderText | UnsetType = UNSET
    target_variant: HeaderText | UnsetType = UNSET
    target_container_hostname: HeaderText | UnsetType = UNSET
    enable_explanations: HeaderText | UnsetType = UNSET
    inference_component_name: HeaderText | UnsetType = UNSET


OPTIONS = CallOptions.__struct_fields__

RestrictedOption = Literal[
    "inference_id",
    "target_model",
    "target_variant",
    "target_container_hostname",
    "enable_explanations",
    "inference_component_name",
]
RESTRICTED: frozenset[str] = frozenset(get_args(RestrictedOption))
"""Options that a client may set only if its route allows it."""

PARAMETERS: Mapping[str, str] = MappingProxyType(
    {name: name.title().replace("_", "") for name in OPTIONS}
)
"""Names of the options in SageMaker Runtime's API model."""
