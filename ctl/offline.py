"""A plan without a gateway: its settings and policies are those of this environment."""

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctl.errors import Refused

Json = dict[str, Any]


async def effects(documents: Sequence[Json]) -> list[Json]:
    """What the gateway would say to `documents`; conflicts with what it has are not known.

    Raises Refused.
    """
    import structlog  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    from compose.envoy_trial import TrialFailed  # noqa: PLC0415
    from compose.errors import BadSettings  # noqa: PLC0415
    from compose.planning import effects_of, planner_of  # noqa: PLC0415
    from compose.settings import load  # noqa: PLC0415
    from policy_engine import catalogue  # noqa: PLC0415
    from policy_engine.loading import watched  # noqa: PLC0415

    try:
        settings = load(environment=os.environ).settings
    except BadSettings as error:
        raise Refused("the settings cannot be used", error.problems) from error
    policies = catalogue.load(system=settings.policies)
    folder = watched.folder_of(settings.policies, settings.gateway.data.expanduser())
    with tempfile.TemporaryDirectory(prefix="signalbox-plan-") as place:
        folder.kept = watched.Kept(Path(place))  # the gateway's own is left alone
        watched.add(policies, folder)
    try:
        return await effects_of(planner_of(settings, policies), documents)
    except TrialFailed as error:
        raise Refused(str(error)) from error
