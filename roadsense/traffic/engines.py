"""Which engine drives: the names a user can ask for."""

from __future__ import annotations

from roadsense.errors import UsageError, nearest
from roadsense.traffic.base import Traffic

ENGINES = ("sumo", "traci")


def make_traffic(engine: str, num_worlds: int, max_cars: int) -> Traffic:
    """Opens an engine for ``num_worlds`` worlds.

    ``"sumo"`` is libsumo: in this process where one world is asked for and nobody uses libsumo here, else one worker
    process a world. ``"traci"`` starts a SUMO program and serves one world.

    Raises:
        UsageError: there is no such engine, or it cannot serve that many worlds.
    """
    if engine == "sumo":
        from roadsense.traffic.connect import libsumo_is_free, open_libsumo
        from roadsense.traffic.worker import WorkerTraffic

        if num_worlds == 1 and libsumo_is_free():
            return open_libsumo(max_cars)
        return WorkerTraffic(num_worlds, max_cars)
    if engine == "traci":
        from roadsense.traffic.connect import open_traci

        if num_worlds != 1:
            raise UsageError('engine "traci" serves one world; use engine="sumo" for several.')
        return open_traci(max_cars)
    raise UsageError(f"engine {engine!r} is unknown; {nearest(engine, ENGINES)}")
