"""One scenario directory: what it states, read and written without any engine.

A scenario is a SUMO configuration (network, routes, V001 among the vehicles) and, beside it, an ``episode.json`` that
says which hazards and drivers an episode draws. Foreign SUMO scenarios have no ``episode.json`` and get the defaults.
"""

from __future__ import annotations

import functools
import hashlib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from roadsense.episode_spec import EPISODE_NAME, EpisodeSpec, read_episode
from roadsense.errors import ScenarioError
from roadsense.vehicles import RouteFiles, Vehicle, parse_xml, read_time_s

EGO_ID = "V001"
CONFIG_NAME = "scenario.sumocfg"

_SHORT = {"net-file": ("net",), "route-files": ("routes", "route"), "additional-files": ("additional",)}
_FOLLOWED = ("begin", *_SHORT, *(name for names in _SHORT.values() for name in names))
_ALWAYS = (("step-length", "0.1"), ("time-to-teleport", "-1"), ("collision.action", "warn"))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A parsed scenario directory. ``vehicles`` has V001 first, then the others in the order of their ids."""

    scenario_id: str
    path: Path
    source: Path
    """The ``.sumocfg`` it was read from."""
    net_file: Path
    route_files: tuple[Path, ...]
    additional_files: tuple[Path, ...]
    begin_s: float
    vehicles: tuple[Vehicle, ...]
    has_flows: bool
    """Vehicles may appear that ``vehicles`` does not list."""
    acting: tuple[str, ...]
    """Tags of elements that act on the traffic as it goes: lights, speed signs."""
    left_out: tuple[str, ...]
    """What the files state and is not followed: options of the configuration, elements that are no traffic."""
    episode: EpisodeSpec

    @property
    def ego(self) -> Vehicle:
        return self.vehicles[0]

    @property
    def exact(self) -> bool:
        """True where V001 is on the road at t = 0 in a state stated in numbers."""
        return self.ego.stated and self.ego.depart_s <= self.begin_s

    @functools.cached_property
    def net_digest(self) -> str:
        """SHA-256 (hex) of the network file: equal for copies of one road."""
        return hashlib.sha256(self.net_file.read_bytes()).hexdigest()


def _files(root: ET.Element, option: str, folder: Path) -> tuple[Path, ...]:
    """Paths that a configuration states for an option, by its own name or one of SUMO's short ones."""
    elements = [element for tag in (option, *_SHORT[option]) for element in root.iter(tag)]
    names = [name for element in elements[:1] for name in element.get("value", "").replace(",", " ").split()]
    return tuple(folder / name for name in names)


def _config_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise ScenarioError(f"{path}: no such scenario directory; give one, or a .sumocfg file.")
    if (path / CONFIG_NAME).is_file():
        return path / CONFIG_NAME
    found = sorted(path.glob("*.sumocfg"))
    if len(found) == 1:
        return found[0]
    problem = f"holds {len(found)} .sumocfg files; name one of them" if found else "holds no .sumocfg file; name one"
    raise ScenarioError(f"{path}: {problem}.")


def _begin_s(root: ET.Element, config: Path) -> float:
    begin = root.find(".//begin")
    text = begin.get("value", "0") if begin is not None else "0"
    try:
        return read_time_s(text)
    except ValueError:
        raise ScenarioError(f"{config}: begin is {text!r}; give seconds.") from None


def _ignored_options(root: ET.Element) -> list[str]:
    """Names of the options that a configuration states and nobody follows."""
    options = [option for section in root for option in (list(section) or [section])]
    return sorted({
        option.tag for option in options
        if option.tag not in _FOLLOWED and (option.tag, option.get("value")) not in _ALWAYS
    })  # fmt: skip


def read_scenario(path: str | Path, scenario_id: str | None = None) -> Scenario:
    """Reads a scenario directory (or one ``.sumocfg`` file).

    Raises:
        ScenarioError: a file is missing or does not parse, or there is no V001; the message names file and mend.
    """
    config = _config_file(Path(path))
    root = parse_xml(config)
    folder = config.parent
    nets = _files(root, "net-file", folder)
    if len(nets) != 1:
        raise ScenarioError(f"{config}: states {len(nets)} net-files; a scenario has exactly one.")
    if not nets[0].is_file():
        raise ScenarioError(f"{nets[0]}: no such file, but {config.name} names it as the network.")
    route_files = _files(root, "route-files", folder)
    additional_files = _files(root, "additional-files", folder)
    routes = RouteFiles()
    for file in (*additional_files, *route_files):
        routes.read(file)
    ego = routes.vehicles.pop(EGO_ID, None)
    if ego is None:
        raise ScenarioError(f"{config}: no vehicle {EGO_ID} in its route files; name the ego car {EGO_ID}.")
    others = [routes.vehicles[name] for name in sorted(routes.vehicles)]
    return Scenario(
        scenario_id=scenario_id or folder.name,
        path=folder,
        source=config,
        net_file=nets[0],
        route_files=route_files,
        additional_files=additional_files,
        begin_s=_begin_s(root, config),
        vehicles=(ego, *others),
        has_flows=routes.has_flows,
        acting=tuple(sorted(routes.acting)),
        left_out=(*_ignored_options(root), *sorted(routes.left_out)),
        episode=read_episode(folder / EPISODE_NAME),
    )
