"""Makes formats beside a run, proves each, and puts into the run what is proven: all at once, at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roadsense.errors import RoadsenseError
from roadsense.export.formats import FORMATS, WEIGHTS, known_formats, measure
from roadsense.export.network import load_network
from roadsense.export.recording import Recording
from roadsense.files import cannot_write
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME, read_signature

_WORK = ".export"
"""Folder in a run where formats lie until they are proven."""


@dataclass(kw_only=True)
class Exported:
    """What an export comes to."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By format, as in ``parity.json``; also those of earlier exports."""
    made: list[str] = field(default_factory=list)
    """Formats that were made and are within their bounds."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why formats are not kept that were asked for."""
    absent: dict[str, str] = field(default_factory=dict)
    """Why formats cannot be had here."""

    def refuse(self, name: str, why: str) -> None:
        """Takes a format out."""
        self.facts[name] = {"available": True, **self.facts.get(name, {}), "passed": False, "why": why}
        self.refused[name] = why
        if name in self.made:
            self.made.remove(name)


@contextlib.contextmanager
def workplace(run_dir: Path) -> Iterator[Path]:
    """A folder with the run's policy and the formats that it has proof of; gone at the end, whatever happens."""
    work = run_dir / _WORK
    shutil.rmtree(work, ignore_errors=True)  # of an export that was killed
    try:
        work.mkdir()
        for name in (WEIGHTS_NAME, SIGNATURE_NAME):
            shutil.copyfile(run_dir / name, work / name)
        for name, facts in known_formats(run_dir).items():
            if facts.get("passed") is True and name != WEIGHTS:
                for file in FORMATS[name].beside(run_dir / facts["file"], run_dir):
                    (work / file.relative_to(run_dir)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, work / file.relative_to(run_dir))
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        raise cannot_write(work, error) from None
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def make(work: Path, names: Sequence[str], recording: Recording, known: dict[str, dict[str, Any]]) -> Exported:
    """Writes formats into a workplace and compares each with the network.

    Args:
        work: the workplace.
        names: of formats.
        recording: what is compared on, and calibrated on.
        known: facts of earlier exports.

    Raises:
        RoadsenseError: the weights cannot be read, or do not decide as the network; there is nothing to compare on.
    """
    if len(recording.observations.ego) == 0:
        raise RoadsenseError(f"{work.parent}: there is no observation to compare on; record at least one episode.")
    signature, network, result = read_signature(work), load_network(work), Exported(facts=dict(known))
    for name in (WEIGHTS, *names):
        form = FORMATS[name]
        if why := form.why_not(signature):
            result.absent[name] = why
            if result.facts.get(name, {}).get("passed") is not True:  # or it was proven on another machine
                result.facts[name] = {"available": False, "why": why}
            continue
        result.facts.pop(name, None)
        if name != WEIGHTS:
            form.remove(work)
        try:
            form.write(work, recording.calibration)
            found = measure(work, name, recording.observations, network=network)
            result.facts[name] = {"available": True, **found.document(), **form.report(work)}
            why = found.why and f"{found.why}, over {found.observations} observations"
        except RoadsenseError as error:
            why = str(error).rstrip(".").replace(f"{work}/", "")
        if why and name == WEIGHTS:
            raise RoadsenseError(f"{work.parent / WEIGHTS_NAME}: {why}; the policy is not usable.")
        if why:
            result.refuse(name, why)
            form.remove(work)
        elif name != WEIGHTS:
            result.made.append(name)
    return result


def settle(work: Path, run_dir: Path, result: Exported) -> list[Path]:
    """Puts what was made into the run, in the place of what was there, and takes out what was refused.

    Returns:
        The first file of every format that was made.
    """
    for name in result.refused:
        FORMATS[name].remove(run_dir)
    put = []
    for name in result.made:
        first = FORMATS[name].path(work)
        assert first is not None
        for file in FORMATS[name].beside(first, work):
            into = run_dir / file.relative_to(work)
            try:
                into.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, into)
            except OSError as error:
                raise cannot_write(into, error) from None
        put.append(run_dir / first.relative_to(work))
    return put
