"""Which engine drives: the names a user can ask for."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from roadsense.errors import UsageError, nearest
from roadsense.scenario import Scenario
from roadsense.traffic.base import Traffic
from roadsense.traffic.expressible import NotExpressibleError, chain_of
from roadsense.traffic.route import RouteCatalogue

log = logging.getLogger(__name__)

ENGINES = ("sumo", "native", "auto", "traci")


def choose_engine(engine: str, scenarios: Iterable[Scenario]) -> str:
    """The engine that drives these scenarios: what is asked for, and for ``"auto"`` native where it can drive them all.

    Args:
        engine: one of ``ENGINES``.
        scenarios: all that shall be driven; networks are read where the native engine may have to.

    Raises:
        UsageError: there is no such engine.
        NotExpressibleError: ``"native"`` is asked for and cannot drive one of them.
        ScenarioError: one cannot be read.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is unknown; {nearest(engine, ENGINES)}")
    if engine not in ("native", "auto"):
        return engine
    catalogue = RouteCatalogue()
    try:
        for scenario in scenarios:
            chain_of(scenario, catalogue)
    except NotExpressibleError as error:
        if engine == "native":
            raise
        log.warning("SUMO drives, at a fraction of the speed: %s", error.reason)
        return "sumo"
    return "native"


def make_traffic(engine: str, num_worlds: int, max_cars: int) -> Traffic:
    """Opens an engine for ``num_worlds`` worlds.

    ``"sumo"`` is libsumo: in this process where one world is asked for and nobody uses libsumo here, else one worker
    process a world. ``"native"`` drives any number of worlds in this process. ``"traci"`` starts a SUMO program and
    serves one world. See :func:`choose_engine` for ``"auto"``.

    Raises:
        UsageError: there is no such engine, or it cannot serve that many worlds.
    """
    if engine == "sumo":
        from roadsense.traffic.connect import libsumo_is_free, open_libsumo
        from roadsense.traffic.worker import WorkerTraffic

        if num_worlds == 1 and libsumo_is_free():
            return open_libsumo(max_cars)
        return WorkerTraffic(num_worlds, max_cars)
    if engine == "native":
        from roadsense.traffic.native import NativeTraffic

        return NativeTraffic(num_worlds, max_cars)
    if engine == "traci":
        from roadsense.traffic.connect import open_traci

        if num_worlds != 1:
            raise UsageError('engine "traci" serves one world; use engine="sumo" for several.')
        return open_traci(max_cars)
    raise UsageError(f"engine {engine!r} is unknown; {nearest(engine, ENGINES)}")
