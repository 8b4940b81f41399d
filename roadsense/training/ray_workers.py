"""Workers in processes of Ray: each is handed jobs, and what is lost with one is done by another.

A job is a pure function of its arguments (:mod:`roadsense.training.driven_worlds`), so nobody sees in a result whether
it was done once or three times, by whom, or in which order results arrived. A worker whose process or machine dies, or
that gives no answer in time, is replaced; until the replacement is up, others do its jobs beside their own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roadsense import jit
from roadsense.errors import InputMismatchError, RoadsenseError, TrafficError
from roadsense.training.driven_worlds import Worker
from roadsense.training.ray_connection import running_ray

MOST_ATTEMPTS = 5
"""So many workers in turn may be lost with the same job, then it is the job's fault; or in one place before they are
up, then the place stays empty."""
_LOOK_AGAIN_S = 1.0

FAULTS = ("died", "hung", "failed")
"""Ways to lose a worker: its process or machine is gone; it gave no answer in time; its engine failed."""


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Who works, and how long it may take."""

    count: int
    """Processes."""
    address: str | None = None
    """``auto`` or ``host:port`` of a Ray cluster; none: one of this process's own."""
    job_limit_s: float = 60.0
    """After this time with a job a worker counts as hung [s]."""
    start_limit_s: float = 180.0
    """How long one may take to come up; with its first job of a kind, which may compile, as much longer [s]."""


class _Job:
    """Something to do, until its result is there."""

    def __init__(self, number: int, method: str, arguments: Sequence[Any]) -> None:
        self.number, self.method, self.arguments = number, method, arguments
        self.taken, self.attempts, self.result = False, 0, None


class _Slot:
    """A worker's place: the process in it may be replaced."""

    def __init__(self, number: int) -> None:
        self.number, self.lost_starts = number, 0
        self.actor: Any = None
        self.call: Any = None
        """What it is asked for, None while idle."""
        self.job: _Job | None = None
        self.is_up = False
        self.done: set[str] = set()
        """Methods it has gone through, so their kernels are compiled."""
        self.since_s = 0.0


class RayWorkers:
    """Worker processes with worlds in each.

    Args:
        config: how many, where.
        num_worlds: in each.
        arguments: of the :class:`roadsense.convoy.player.Player` in each.
        dataset_digest: of the scenarios that they must have.
        radio_digests: of the radio parameters that they must have; None: whatever they have.
        kind: what runs in each.

    Attributes:
        faults: how many workers were lost with a job that was done again, by ``FAULTS``.

    Raises:
        RoadsenseError: Ray is not installed or not reached, or no worker came up.
        InputMismatchError: a worker has other code, scenarios or radio parameters.
    """

    def __init__(
        self,
        config: WorkersConfig,
        num_worlds: int,
        arguments: Mapping[str, Any],
        dataset_digest: str | None = None,
        radio_digests: Sequence[str] | None = None,
        kind: type[Worker] = Worker,
    ) -> None:
        self._joined = contextlib.ExitStack()
        self._joined.enter_context(running_ray(config.count, config.address))
        import ray

        self._ray, self.config = ray, config
        self._opened = (num_worlds, dict(arguments))
        self._expected = {
            "another version of roadsense or numba": ("kernels", jit.source_digest()),
            "another dataset": ("dataset_digest", dataset_digest),
            **({} if radio_digests is None else {"other radio parameters": ("radio_digests", [*radio_digests])}),
        }
        self.faults = dict.fromkeys(FAULTS, 0)
        self._jobs: list[_Job] = []
        # one process, one CPU, and on a cluster not all on the same machine
        options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self._kind = ray.remote(**options)(kind)
        self._slots = [_Slot(number) for number in range(config.count)]
        try:
            for slot in self._slots:
                self._fill(slot)
            while not any(slot.is_up for slot in self._slots):
                self._turn()
        except BaseException:
            self.close()
            raise

    def wait_for_all(self) -> None:
        """Returns once every worker is up that can come up, which jobs do not wait for."""
        while not all(slot.is_up or slot.call is None for slot in self._slots):
            self._turn()

    def share(self, value: Any) -> Any:
        """Puts something that many jobs take as an argument where every worker can fetch it, once."""
        return self._ray.put(value)

    def launch(self, method: str, arguments: Sequence[Sequence[Any]]) -> None:
        """Lets workers begin with jobs, one for each of the ``arguments`` of a method of :class:`Worker`.

        Jobs of an earlier launch that nobody gathered are forgotten.
        """
        self._jobs = [_Job(number, method, one) for number, one in enumerate(arguments)]
        self._hand_out()

    def gather(self) -> list[Any]:
        """Waits for the results of the jobs, in their order.

        Raises:
            RoadsenseError: a job cannot be done, whoever does it.
        """
        while any(job.result is None for job in self._jobs):
            self._turn()
        found, self._jobs = [job.result for job in self._jobs], []
        return found

    def close(self) -> None:
        """Ends all workers, and Ray if it was started for them; calling it again does nothing."""
        for slot in self._slots:
            self._end(slot)
        self._slots = []
        self._joined.close()

    # ---------------------------------------------------------------- one look at who is ready

    def _turn(self) -> None:
        self._hand_out()
        busy = {slot.call: slot for slot in self._slots if slot.call is not None}
        for call in self._ready(list(busy)):
            self._take(busy[call])
        now_s = time.monotonic()
        for slot in self._slots:
            if slot.call is not None and now_s - slot.since_s > self._limit_s(slot) and not self._ready([slot.call], 0):
                self._overdue(slot)

    def _ready(self, calls: list[Any], wait_s: float = _LOOK_AGAIN_S) -> list[Any]:
        ready, _ = self._ray.wait(calls, num_returns=1, timeout=wait_s)
        return list(ready)

    def _limit_s(self, slot: _Slot) -> float:
        if slot.job is None:
            return self.config.start_limit_s
        return self.config.job_limit_s + (0.0 if slot.job.method in slot.done else self.config.start_limit_s)

    def _hand_out(self) -> None:
        """Gives jobs to idle workers: each its own, for there its worlds stand; then what nobody else can begin."""
        waiting = {job.number: job for job in self._jobs if not job.taken}
        idle = [slot for slot in self._slots if slot.is_up and slot.call is None]
        for slot in sorted(idle, key=lambda one: one.number not in waiting):
            if not waiting:
                return
            job = waiting.pop(slot.number if slot.number in waiting else min(waiting))
            job.taken, slot.job, slot.since_s = True, job, time.monotonic()
            slot.call = getattr(slot.actor, job.method).remote(*job.arguments)

    def _take(self, slot: _Slot) -> None:
        """Takes an answer in, or that there will be none."""
        from ray.exceptions import RayError, RayTaskError

        call, slot.call = slot.call, None
        try:
            answer = self._ray.get(call)
        except RayTaskError as error:
            if slot.job is not None and isinstance(error.cause, TrafficError):
                return self._lose(slot, "failed", str(error.cause))
            job, slot.job = slot.job, None
            if job is not None and job not in self._jobs:
                return  # forgotten
            if isinstance(error.cause, RoadsenseError):
                if job is None and self._others_up(slot):
                    return self._lose(slot, "failed", str(error.cause))
                raise error.cause from None
            raise
        except RayError as error:
            return self._lose(slot, "died", str(error).partition("\n")[0])
        if slot.job is None:
            self._welcome(slot, answer)
        else:
            slot.done.add(slot.job.method)
            slot.job.result, slot.job = answer, None

    def _welcome(self, slot: _Slot, told: Mapping[str, Any]) -> None:
        for what, (name, expected) in self._expected.items():
            if told[name] != expected:
                raise InputMismatchError(f"a Ray worker has {what}; give all machines of the cluster the same.")
        slot.is_up, slot.lost_starts = True, 0

    # ---------------------------------------------------------------- who is lost

    def _overdue(self, slot: _Slot) -> None:
        if slot.job is not None:
            return self._lose(slot, "hung", f"no answer for {self.config.job_limit_s:g} s")
        if not self._others_up(slot):
            raise RoadsenseError(
                f"no Ray worker came up within {self.config.start_limit_s:g} s; each needs a free CPU, so lower "
                "workers, look what keeps the cluster busy with `ray status`, or give a cluster that grows more time "
                "by worker_start_limit_s."
            )
        self._fill(slot)  # the cluster may have shrunk for good; the others go on meanwhile

    def _others_up(self, slot: _Slot) -> bool:
        return any(other.is_up for other in self._slots if other is not slot)

    def _lose(self, slot: _Slot, how: str, why: str) -> None:
        """Has the job of a worker done elsewhere, and another worker come up in its place."""
        job = slot.job
        if job is None:
            slot.lost_starts += 1
            if slot.lost_starts < MOST_ATTEMPTS:
                return self._fill(slot)
            if not self._others_up(slot):
                raise RoadsenseError(f"{slot.lost_starts} Ray workers in turn did not come up, the last one for: {why}")
            return self._end(slot)
        self.faults[how] += 1
        job.taken, job.attempts = False, job.attempts + 1
        if job.attempts >= MOST_ATTEMPTS:
            told = f"{job.attempts} Ray workers in turn were lost with the same work, the last one for: {why}"
            raise TrafficError(told)
        self._fill(slot)

    def _fill(self, slot: _Slot) -> None:
        self._end(slot)
        slot.actor, slot.since_s = self._kind.remote(), time.monotonic()
        slot.call = slot.actor.open.remote(*self._opened)

    def _end(self, slot: _Slot) -> None:
        if slot.actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(slot.actor)  # its machine sees to it that even a stopped process goes
        slot.actor, slot.call, slot.job, slot.is_up, slot.done = None, None, None, False, set()
