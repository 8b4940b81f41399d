"""SUMO worlds beside this process: each is a ``python -m roadsense.traffic.worker`` with shared arrays.

A subprocess, never ``multiprocessing``: spawn and forkserver import the user's script anew and die without a
``__main__`` guard, and fork is unsafe after torch. The arrays lie in an unlinked file that both sides map; one byte
through a pipe starts a step and one byte ends it.
"""

from __future__ import annotations

import ctypes
import functools
import json
import mmap
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.errors import RoadsenseError, ScenarioError, TrafficError
from roadsense.scenario import Scenario, read_scenario
from roadsense.traffic.base import Traffic, TrafficState
from roadsense.traffic.route import RouteCatalogue

ANSWER_LIMIT_S = 120.0
"""How long a worker may take for one command before it counts as hung [s]."""

_ADVANCE, _RESET, _CLOSE = b"a", b"r", b"c"
_DONE, _FAILED, _TOLD = b"d", b"f", b"t"
_LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1


class _Commands(NamedTuple):
    next_speed_mps: NDArray[np.float64]
    steered: NDArray[np.bool_]


def _map_arrays(fd: int, num_worlds: int, max_cars: int) -> tuple[mmap.mmap, TrafficState, _Commands]:
    """State and commands of all worlds as arrays over one mapped file, grown to its size first."""
    templates = (*TrafficState.zeros(1, 1), np.zeros(1), np.zeros(1, np.bool_))
    cells = num_worlds * max_cars
    size = sum(-(-template.dtype.itemsize * cells // 64) * 64 for template in templates)
    if os.fstat(fd).st_size < size:
        os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    arrays, offset = [], 0
    for template in templates:
        flat = np.frombuffer(memory, template.dtype, cells, offset)
        arrays.append(flat.reshape(num_worlds, max_cars))
        offset += -(-template.dtype.itemsize * cells // 64) * 64
    return memory, TrafficState._make(arrays[:-2]), _Commands._make(arrays[-2:])


class _Process:
    """The parent's end of one worker."""

    def __init__(self, fd: int, world: int, num_worlds: int, max_cars: int) -> None:
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        # to the kernel the parent is the thread, and one that is not the main thread may end before this process does
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        arguments = [str(n) for n in (child_in, child_out, fd, world, num_worlds, max_cars, parent)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *arguments],
                pass_fds=(child_in, child_out, fd),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        finally:
            os.close(child_in)
            os.close(child_out)
        self._poll = select.poll()
        self._poll.register(self._in, select.POLLIN)

    def send(self, data: bytes) -> None:
        try:
            os.write(self._out, data)
        except BrokenPipeError:
            raise self._gone() from None

    def answer(self) -> Any:
        """Waits for the answer to the last command; raises what the worker reports, or that it is gone."""
        kind = self._read(1)
        if kind == _DONE:
            return None
        told = json.loads(self._read(_LENGTH.unpack(self._read(_LENGTH.size))[0]))
        if kind == _TOLD:
            return told
        errors = {error.__name__: error for error in (ScenarioError, TrafficError)}
        raise errors.get(told["error"], TrafficError)(told["message"])

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            if not self._poll.poll(ANSWER_LIMIT_S * 1000):
                self._process.kill()
                raise TrafficError(f"a traffic worker gave no answer for {ANSWER_LIMIT_S:g} s and was ended.")
            part = os.read(self._in, count - len(data))
            if not part:
                raise self._gone()
            data += part
        return data

    def _gone(self) -> TrafficError:
        self._process.kill()
        return TrafficError(f"a traffic worker ended by itself (exit code {self._process.wait()}).")

    def close(self) -> None:
        if self._process.poll() is None:
            try:
                os.write(self._out, _CLOSE)
                self._process.wait(5)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)


class WorkerTraffic(Traffic):
    """``num_worlds`` SUMO worlds, each in a process of its own; they move side by side."""

    def __init__(self, num_worlds: int, max_cars: int) -> None:
        self.num_worlds, self.max_cars = num_worlds, max_cars
        self.catalogue = RouteCatalogue()
        self._route_of_world = [-1] * num_worlds
        with tempfile.TemporaryFile(prefix="roadsense-") as file:
            self._memory, self.state, self._commands = _map_arrays(file.fileno(), num_worlds, max_cars)
            self._processes: list[_Process] = []
            self._end = weakref.finalize(self, _close_all, self._processes)  # also when it is merely forgotten
            for world in range(num_worlds):
                self._processes.append(_Process(file.fileno(), world, num_worlds, max_cars))

    def reset(self, scenarios: Sequence[Scenario | None], seeds: Sequence[int]) -> None:
        self._refuse_if_closed()
        asked = [
            (world, s, seed) for world, (s, seed) in enumerate(zip(scenarios, seeds, strict=True)) if s is not None
        ]
        for world, scenario, seed in asked:
            order = {"path": str(scenario.source), "id": scenario.scenario_id, "seed": int(seed)}
            text = json.dumps(order).encode()
            self._processes[world].send(_RESET + _LENGTH.pack(len(text)) + text)
        failures: list[RoadsenseError] = []
        for world, scenario, _ in asked:
            try:
                lanes = tuple(self._processes[world].answer())
                self._route_of_world[world] = self.catalogue.add(scenario.net_file, scenario.net_digest, lanes)
            except RoadsenseError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        if asked:
            self.routes = self.catalogue.table([max(route, 0) for route in self._route_of_world])

    def advance(
        self, next_speed_mps: NDArray[np.float64], steered: NDArray[np.bool_], active: NDArray[np.bool_]
    ) -> None:
        self._refuse_if_closed()
        self._commands.next_speed_mps[...] = next_speed_mps
        self._commands.steered[...] = steered
        moving = [process for process, moves in zip(self._processes, active.tolist(), strict=True) if moves]
        for process in moving:
            process.send(_ADVANCE)
        failures: list[RoadsenseError] = []
        for process in moving:
            try:
                process.answer()
            except RoadsenseError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _refuse_if_closed(self) -> None:
        if not self._end.alive:
            raise TrafficError("these worlds are closed; open new ones.")

    def close(self) -> None:
        self._end()  # arrays handed out may live on; the mapping is freed with the last of them


def _close_all(processes: list[_Process]) -> None:
    for process in processes:
        process.close()


class _Orders:
    """The worker's end: commands come in, answers go out."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in, self._out = fd_in, fd_out

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = os.read(self._in, count - len(data))
            if not part:
                return b""  # the parent is gone
            data += part
        return data

    def done(self) -> None:
        os.write(self._out, _DONE)

    def tell(self, kind: bytes, document: object) -> None:
        text = json.dumps(document).encode()
        os.write(self._out, kind + _LENGTH.pack(len(text)) + text)


def _serve(orders: _Orders, traffic: Any, commands: _Commands) -> None:
    active = np.ones(1, np.bool_)
    while True:
        order = orders.read(1)
        if order in (b"", _CLOSE):
            return
        try:
            if order == _ADVANCE:
                traffic.advance(commands.next_speed_mps, commands.steered, active)
                orders.done()
            else:
                asked = json.loads(orders.read(_LENGTH.unpack(orders.read(_LENGTH.size))[0]))
                traffic.reset([_read_once(asked["path"], asked["id"])], [asked["seed"]])
                orders.tell(_TOLD, traffic.ego_lanes)
        except RoadsenseError as error:
            orders.tell(_FAILED, {"error": type(error).__name__, "message": str(error)})
        except Exception as error:  # the parent must hear of any failure, or it would wait for the limit
            orders.tell(_FAILED, {"error": "TrafficError", "message": f"traffic worker: {error!r}"})


_read_once = functools.lru_cache(maxsize=4096)(read_scenario)


def _end_with(parent: int) -> None:
    """Has this process killed when its parent ends, whose end a SUMO that hangs would never read of."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        sys.exit()


def main(arguments: Sequence[str]) -> None:
    """Serves one world until the parent closes its end of the pipe."""
    from roadsense.traffic.connect import open_libsumo

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    fd_in, fd_out, fd_memory, world, num_worlds, max_cars, parent = (int(argument) for argument in arguments)
    if parent and sys.platform == "linux":
        _end_with(parent)
    _, state, commands = _map_arrays(fd_memory, num_worlds, max_cars)
    traffic = open_libsumo(max_cars, state.world(world))
    own = _Commands._make(array[world : world + 1] for array in commands)
    try:
        _serve(_Orders(fd_in, fd_out), traffic, own)
    finally:
        traffic.close()


if __name__ == "__main__":
    main(sys.argv[1:])
