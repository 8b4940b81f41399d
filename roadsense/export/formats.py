"""The formats a policy is exported in, how far each may be from the network, and how one is opened and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadsense.convoy.observation import Observation
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError, nearest
from roadsense.export.c import c_report, export_c
from roadsense.export.network import NetworkPolicy, load_network
from roadsense.export.onnx import export_onnx
from roadsense.export.parity import Bounds, FormatParity, compare
from roadsense.export.quantised import FP16_NAME, INT8_NAME, export_fp16, export_int8, quantised_layers
from roadsense.export.tensorrt import export_engine, graph_problems, why_unavailable
from roadsense.files import write_json
from roadsense.manifest import file_digest
from roadsense.policies.c_source import HEADER_NAME, SOURCE_NAME
from roadsense.policies.compiled import host_compiler
from roadsense.policies.engine import ENGINES_NAME, PLAN_NAME, RECORD_NAME
from roadsense.policies.gpu import this_device
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import ONNX_NAME, SIGNATURE_NAME, WEIGHTS_NAME, Signature, read_signature
from roadsense.runs import read_record

PARITY_NAME = "parity.json"
WEIGHTS = "safetensors"
"""Format that is no export: the weights themselves, by the runtime."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A form of the policy."""

    files: tuple[str, ...]
    """Places in the run folder, patterns allowed; the runtime reads the first one."""
    write: Callable[[Path, Observation], Path]
    """Writes it into a run folder and returns the first file; observations to calibrate on are at hand."""
    bounds: Bounds
    why_not: Callable[[Signature], str] = lambda signature: ""
    """Why a policy cannot have it on this machine; empty where it can."""
    report: Callable[[Path], dict[str, Any]] = lambda run: {}
    """What else is to be said of it."""
    folder: Callable[[], str] = lambda: ""
    """Name of the folder for files that are of this machine alone; empty: they are of any."""

    def path(self, run_dir: Path) -> Path | None:
        """Its first file in a run, where there is one; of this machine, where it can be had here."""
        found = sorted(run_dir.glob(self.files[0]))
        own = [file for file in found if file.parent.name == self.folder()]
        return next(iter([*own, *found]), None)

    def beside(self, path: Path, run_dir: Path) -> list[Path]:
        """The files of which ``path`` is the first one."""
        return [file for pattern in self.files for file in run_dir.glob(pattern) if file.parent == path.parent]

    def remove(self, run_dir: Path) -> None:
        """Takes what is of this machine, or of any, out of a run."""
        path = self.path(run_dir)
        if path is not None and (not self.folder() or path.parent.name == self.folder()):
            for file in self.beside(path, run_dir):
                file.unlink()

    def written(self) -> tuple[str, ...]:
        """Names of what an export of it writes into a run, folders ending in "/"."""
        own = self.folder()
        return (f"{ENGINES_NAME}/{own}/",) if own else tuple(name for name in self.files if "*" not in name)


def _why_no_int8(signature: Signature) -> str:
    return "" if quantised_layers(signature.widths) else "no layer of so small a network is quantised"


def _why_no_c(signature: Signature) -> str:
    if signature.widths.lstm:
        return "the network has a memory, which the C export does not know"
    try:
        host_compiler()
    except RoadsenseError as error:
        return f"it cannot be compared, {str(error).rstrip('.')}"
    return ""


def _engines_of() -> str:
    return "" if why_unavailable() else this_device().folder


def _for_tensorrt(file: str) -> Callable[[Path], dict[str, Any]]:
    """What can be said without a GPU of whether TensorRT takes a file."""
    return lambda run: {"tensorrt_problems": graph_problems(run / file)}


SINGLE = Bounds(difference=1e-5)
"""Of implementations in single precision."""

FORMATS = {
    WEIGHTS: Format(files=(WEIGHTS_NAME, SIGNATURE_NAME), write=lambda run, _: run / WEIGHTS_NAME, bounds=SINGLE),
    "onnx": Format(
        files=(ONNX_NAME,), write=lambda run, _: export_onnx(run), bounds=SINGLE, report=_for_tensorrt(ONNX_NAME)
    ),
    "fp16": Format(
        files=(FP16_NAME,), write=lambda run, _: export_fp16(run), bounds=Bounds(difference=1e-2),
        report=_for_tensorrt(FP16_NAME),
    ),
    "int8": Format(
        files=(INT8_NAME,), write=export_int8, bounds=Bounds(difference=5e-2, brake_agreement=0.995),
        why_not=_why_no_int8, report=_for_tensorrt(INT8_NAME),
    ),
    "c": Format(
        files=(SOURCE_NAME, HEADER_NAME), write=lambda run, _: export_c(run)[1], bounds=Bounds(difference=1e-6),
        why_not=_why_no_c, report=c_report,
    ),
    "tensorrt": Format(
        files=(f"{ENGINES_NAME}/*/{PLAN_NAME}", f"{ENGINES_NAME}/*/{RECORD_NAME}"),
        write=lambda run, _: export_engine(run), bounds=Bounds(difference=1e-4),
        why_not=lambda signature: why_unavailable(), folder=_engines_of,
    ),
}  # fmt: skip
"""By name, in the order they are made. Bounds are those of the field for each form."""


def open_format(run_dir: Path, name: str) -> Policy:
    """The policy of a format that a run has.

    Raises:
        UsageError: there is no such format, or the run does not have it.
        InputMismatchError: it was exported from other weights.
        RoadsenseError: the file cannot be read.
    """
    path = _format(name).path(run_dir)
    if path is None:
        raise UsageError(f"{run_dir / _format(name).files[0]}: no such file; export the format {name} first.")
    policy = Policy.load(path)
    if policy.signature != read_signature(run_dir):
        raise InputMismatchError(f"{path}: was exported from other weights; export it again.")
    return policy


def measure(
    run_dir: str | Path, name: str, observations: Observation, *, network: NetworkPolicy | None = None, seed: int = 0
) -> FormatParity:
    """Compares a format of a run with the torch network, and one that is made beside ``model.onnx`` with that too.

    Args:
        run_dir: the run folder.
        name: of the format.
        observations: recorded ones along the leading axis.
        network: of the run, where it was read before.
        seed: see :func:`roadsense.export.parity.compare`.

    Raises:
        UsageError, InputMismatchError, RoadsenseError: see :func:`open_format`.
    """
    run_dir, form = Path(run_dir), _format(name)
    policy, path = open_format(run_dir, name), form.path(run_dir)
    assert path is not None
    others = name not in (WEIGHTS, "onnx") and FORMATS["onnx"].path(run_dir) is not None
    return compare(
        policy, path, network or load_network(run_dir), open_format(run_dir, "onnx") if others else None, observations,
        form.bounds, folder=run_dir, seed=seed,
    )  # fmt: skip


def known_formats(run_dir: Path) -> dict[str, dict[str, Any]]:
    """What ``parity.json`` says of formats, while their files are the ones compared, or not there."""
    stated = read_record(run_dir / PARITY_NAME).get("formats")
    found = {}
    for name, facts in (stated if isinstance(stated, dict) else {}).items():
        if name in FORMATS and isinstance(facts, dict):
            if facts.get("passed") is True:
                file = run_dir / str(facts.get("file"))
                if not file.is_file() or file_digest(file) != facts.get("digest"):
                    continue
            elif FORMATS[name].path(run_dir) is not None:
                continue
            found[name] = facts
    return found


def write_parity(run_dir: Path, formats: dict[str, dict[str, Any]], origin: dict[str, Any]) -> None:
    """Writes ``parity.json``, formats in the order of :data:`FORMATS`."""
    ordered = {name: formats[name] for name in FORMATS if name in formats}
    write_json(run_dir / PARITY_NAME, {"schema_version": 2, "observations": origin, "formats": ordered})


def check_formats(names: Sequence[str]) -> list[str]:
    """The formats that an export makes, each once, in the order of :data:`FORMATS`; all, where none is named.

    Raises:
        UsageError: one is unknown.
    """
    made = [name for name in FORMATS if name != WEIGHTS]
    for name in names:
        if name not in made:
            raise UsageError(f"format {name!r} is unknown; {nearest(name, made)}")
    return [name for name in made if name in names or not names]


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"format {name!r} is unknown; {nearest(name, FORMATS)}")
    return FORMATS[name]
