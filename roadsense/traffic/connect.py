"""Connections to SUMO: libsumo in this process, which serves one world, or a SUMO program over TraCI."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import subprocess
import weakref
from pathlib import Path
from typing import Any

from roadsense.errors import TrafficError
from roadsense.traffic.base import TrafficState
from roadsense.traffic.sumo import SUMO_OPTIONS, SumoTraffic

log = logging.getLogger(__name__)

_owner: tuple[int, weakref.ref[SumoTraffic]] | None = None
_EMPTY_NET = Path(__file__).parent / "empty.net.xml"


def _libsumo() -> Any:
    """libsumo, which prints a warning where it finds another pyarrow than its own: Ray brings one, and both go well."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        import libsumo
    if said.getvalue():
        log.debug("libsumo: %s", " ".join(said.getvalue().split()))
    return libsumo


def libsumo_is_free() -> bool:
    """True where this process may start libsumo: nobody uses it, its owner here is gone, or a fork inherited it."""
    libsumo = _libsumo()
    if _owner is not None:
        pid, reference = _owner
        return pid != os.getpid() or reference() is None
    return not libsumo.isLoaded()


def open_libsumo(max_cars: int, state: TrafficState | None = None) -> SumoTraffic:
    """SUMO inside this process. Only one such world can exist in a process; see :func:`libsumo_is_free`."""
    global _owner
    libsumo = _libsumo()

    def close() -> None:
        global _owner
        _owner = None
        if libsumo.isLoaded():
            libsumo.close()

    libsumo.start(["sumo", "-n", str(_EMPTY_NET), *SUMO_OPTIONS])
    traffic = SumoTraffic(max_cars, libsumo, state, close)
    _owner = (os.getpid(), weakref.ref(traffic))
    return traffic


def open_traci(max_cars: int, gui: bool = False) -> SumoTraffic:
    """SUMO as a process of its own, spoken to over TraCI: slower, for sumo-gui, debugging and foreign platforms."""
    import sumolib
    import traci

    binary = shutil.which("sumo-gui" if gui else "sumo")
    if binary is None:
        try:
            binary = sumolib.checkBinary("sumo-gui" if gui else "sumo")
        except (OSError, SystemExit):
            binary = None
    if binary is None or (shutil.which(binary) is None and not Path(binary).exists()):
        raise TrafficError('engine "traci" needs the sumo program; install it with: pip install "roadsense[sumo]".')
    port = sumolib.miscutils.getFreeSocketPort()
    label = f"roadsense-{port}"
    command = [binary, "-n", str(_EMPTY_NET), *SUMO_OPTIONS, *(["--start", "--quit-on-end"] if gui else [])]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every attempt to connect
        traci.start(command, port=port, label=label, stdout=subprocess.DEVNULL)
    connection = traci.getConnection(label)
    connection.TraCIException = traci.TraCIException
    connection.FatalTraCIError = traci.FatalTraCIError
    return SumoTraffic(max_cars, connection, on_close=connection.close)
