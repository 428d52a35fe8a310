"""Checks whether AWS can be called from this machine: region, profile and credentials.

AWS's SDK resolves these when a call is made, and its errors say little. Resolving credentials may
call the instance's or container's metadata service, AWS STS or a program, so it has a time limit.
"""

import asyncio
import difflib
import os
import re
from pathlib import Path
from typing import Any, Literal

import botocore
import botocore.exceptions as boto
import msgspec
from aiobotocore.session import AioSession
from botocore.loaders import create_loader

CREDENTIALS_SECONDS = 5.0
"""Time limit for resolving credentials."""

_SHOWN = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,12}){1,4}")
"""A region that is safe to print; anything else could be a misplaced secret."""

_OWN_WORDS = tuple(
    getattr(boto, name)
    for name in (
        "PartialCredentialsError",
        "InvalidConfigError",
        "InfiniteLoopConfigError",
        "SSOTokenLoadError",
        "UnauthorizedSSOTokenError",
        "LoginRefreshRequired",
        "LoginInsufficientPermissions",
    )
    if hasattr(boto, name)
)
"""Errors whose text is the SDK's own, with names of profiles, variables and addresses."""

_PROFILE_VARIABLES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
"""The variables, in the order in which the SDK reads them."""

_CODE = re.compile(r"[A-Za-z.]{1,64}")


class PlatformProblem(msgspec.Struct, frozen=True):
    """Why calls to the platform fail, or may fail.

    Attributes:
        about: The subject: a key of ``[aws]``, the credentials, or a setting for all AWS tools, in
            which case the text begins with the variable or the file.
        text: What is wrong, and what to do. Contains no secret.
        certain: Whether calls can't work; otherwise it may be intended.
    """

    about: Literal["region", "profile", "credentials", "environment"]
    text: str
    certain: bool = True

    def __str__(self) -> str:
        """The subject and the text."""
        is_key = self.about in {"region", "profile"}
        return f"aws.{self.about}: {self.text}" if is_key else self.text


async def platform_problems(
    *,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    credentials: bool = True,
    seconds: float = CREDENTIALS_SECONDS,
) -> list[PlatformProblem]:
    """Return what prevents calls, as far as it can be found out without calling an endpoint.

    Args:
        region: The region; None for that of the environment or the profile.
        profile: A profile in the shared configuration files; None for the default one.
        endpoint_url: An endpoint to call instead of AWS; it may have other region names.
        credentials: Whether to resolve credentials too.
        seconds: The time limit for that.
    """
    session: Any = AioSession(profile=profile)
    try:
        session.get_scoped_config()
    except boto.ProfileNotFound:
        return [_unknown_profile(session, given=profile is not None)]
    except boto.ConfigParseError as error:
        path = error.kwargs["path"]
        text = f"{path}: this AWS configuration file can't be parsed"
        return [PlatformProblem("environment", text)]
    problems = [_region(session, region, elsewhere=endpoint_url is not None)]
    if credentials:
        problems.append(await _credentials(session, seconds))
    return [problem for problem in problems if problem is not None]


def default_region(profile: str | None) -> str | None:
    """Return the region that AWS tools use on this machine; None if there is none.

    Args:
        profile: A profile in the shared configuration files; None for the default one.
    """
    session: Any = AioSession(profile=profile)
    try:
        found = session.get_config_variable("region") or os.environ.get("AWS_REGION")
    except (boto.ProfileNotFound, boto.ConfigParseError):
        return None
    return None if found is None else str(found)


def region_problem(name: str) -> PlatformProblem | None:
    """Check a region; return None if it is valid."""
    return _region(AioSession(), name, elsewhere=False)


def _unknown_profile(session: Any, *, given: bool) -> PlatformProblem:
    name, known = session.profile, session.available_profiles
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        there_is = f"did you mean {close[0]}?"
    elif known:
        there_is = f"the profiles are {', '.join(known)}"
    else:
        there_is = "they contain no profiles"
    # The name is not printed, since it could be a misplaced secret.
    text = f"there is no profile with this name in {_files(session)}; {there_is}"
    if given:
        return PlatformProblem("profile", text)
    variable = next(name for name in _PROFILE_VARIABLES if name in os.environ)
    return PlatformProblem("environment", f"{variable}: {text}")


def _region(session: Any, given: str | None, *, elsewhere: bool) -> PlatformProblem | None:
    name = given or session.get_config_variable("region")
    if name is None:
        text = 'no region is set; set one, such as region = "us-east-1", or set AWS_DEFAULT_REGION'
        if os.environ.get("AWS_REGION"):
            text += " (AWS's SDK for Python does not read AWS_REGION)"
        return PlatformProblem("region", text)
    partitions = create_loader().load_data("partitions")["partitions"]
    names = {region for partition in partitions for region in partition["regions"]}
    known = {region for region in names if not region.endswith("-global")}
    if name in known:
        return None
    shown = name if _SHOWN.fullmatch(name) else "this"
    text = f"{shown} is not a region that botocore {botocore.__version__} knows"
    if close := _closest(name, known):
        text += f"; did you mean {' or '.join(close)}?"
    stem, _, number = name.rpartition("-")
    newer = number.isdigit() and any(region.rpartition("-")[0] == stem for region in known)
    certain = not (newer or elsewhere)
    if given is not None:
        return PlatformProblem("region", text, certain)
    variable = "AWS_DEFAULT_REGION"
    source = variable if os.environ.get(variable) else f"region in {_files(session)}"
    return PlatformProblem("environment", f"{source}: {text}", certain)


def _closest(name: str, known: set[str]) -> list[str]:
    """Return the most similar names; ``us-est-1`` is as close to us-east-1 as to us-west-1."""
    close = difflib.get_close_matches(name, sorted(known))
    likeness = [difflib.SequenceMatcher(None, region, name).ratio() for region in close]
    return sorted(
        region for region, like in zip(close, likeness, strict=True) if like == max(likeness)
    )


async def _credentials(session: Any, seconds: float) -> PlatformProblem | None:
    try:
        async with asyncio.timeout(seconds):
            found = await session.get_credentials()
            if found is None:
                return PlatformProblem("credentials", _none_found(session))
            await found.get_frozen_credentials()
    except TimeoutError:
        text = f"looking for AWS credentials took longer than {seconds:g} s"
        return PlatformProblem("credentials", text, certain=False)
    except Exception as error:  # noqa: BLE001 - the SDK raises anything for a program's output
        return PlatformProblem("credentials", no_credentials(error))
    return None


def no_credentials(error: Exception) -> str:
    """Return why there are none, without a program's or server's output: it may contain secrets."""
    kind = type(error).__name__
    match error:
        case OSError(strerror=str(text), filename=str(name)):
            why = f"{text}: {name}"
        case _ if isinstance(error, _OWN_WORDS):
            why = str(error)
        case boto.ClientError(operation_name=operation, response={"Error": {"Code": str(code)}}):
            why = f"{operation} was refused: {code if _CODE.fullmatch(code) else '…'}"
        case boto.BotoCoreError(kwargs={"provider": provider}):
            why = f"{provider} failed ({kind}); `aws sts get-caller-identity` says more"
        case _:
            why = f"{kind}; `aws sts get-caller-identity` says more"
    return f"AWS credentials can't be loaded: {why}"


def _none_found(session: Any) -> str:
    roles = "the role of the container or instance"
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        roles += " (AWS_EC2_METADATA_DISABLED excludes the instance's)"
    profile = session.profile or "default"
    return (
        f"no AWS credentials were found in AWS_ACCESS_KEY_ID, profile {profile} in "
        f"{_files(session)}, or {roles}. Run `aws configure`, or set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY"
    )


def _files(session: Any) -> str:
    names = ("config_file", "credentials_file")
    paths = [Path(session.get_config_variable(name)).expanduser() for name in names]
    home = Path.home()
    return " and ".join(
        f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path) for path in paths
    )
