"""The convoy as RLlib wants it: its environment runners step all worlds in one call and reset in the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gymnasium.vector import AutoresetMode

from roadsense.convoy.env import ConvoyEnv
from roadsense.convoy.vector import ConvoyVectorEnv


def make_convoy(context: Mapping[str, Any]) -> ConvoyEnv | ConvoyVectorEnv:
    """An environment creator for ``ray.tune.register_env``; Ray itself is not needed here.

    RLlib's runners ask for one world, or, with ``gym_env_vectorize_mode="vector_entry_point"``, for all worlds of a
    runner as one environment. Their arrays of ended worlds hold the last observation; the next step begins anew.

    Example:
        >>> env = make_convoy({"engine": "native", "scenario_list": ["straight"], "num_envs": 2})
        >>> env.num_envs, env.metadata["autoreset_mode"].value
        (2, 'NextStep')
        >>> env.close()

    Args:
        context: arguments of :class:`roadsense.convoy.env.ConvoyEnv`, as in ``config.environment(env_config=…)``, and
            ``num_envs`` where RLlib asks for several worlds.

    Raises:
        UsageError: an argument names something that does not exist.
    """
    arguments = dict(context)
    num_envs = arguments.pop("num_envs", None)
    if num_envs is None:
        return ConvoyEnv(**arguments)
    return ConvoyVectorEnv(num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, **arguments)
