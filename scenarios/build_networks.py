"""Rebuilds the networks of the base scenarios: road description -> plain XML sources -> network.net.xml.

    python scenarios/build_networks.py [--into FOLDER]

The description stands here because nobody can read an arc out of a thousand coordinates. Equal inputs and an equal
netconvert give equal bytes: coordinates are rounded to a tenth of a millimetre, and the comment in which netconvert
notes date and machine is removed. ``netconvert`` comes with the eclipse-sumo wheel.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BASE = Path(__file__).resolve().parent / "base"

ARC_STEP_M = 3.0
"""Longest chord an arc is cut into [m]; at 60 m radius it leaves the circle by 19 mm."""


@dataclass(frozen=True)
class Straight:
    length_m: float


@dataclass(frozen=True)
class Arc:
    radius_m: float
    turn_deg: float
    """Change of direction [degrees]; positive is to the left."""


@dataclass(frozen=True)
class Edge:
    id: str
    limit_mps: float
    parts: tuple[Straight | Arc, ...]
    """Begins and ends straight, so that the junction between two edges has no turn of its own."""


ROADS: dict[str, tuple[Edge, ...]] = {
    "straight": (Edge("straight", 25.0, (Straight(3500),)),),
    # Lateral acceleration at the limit: 2.1 to 3.2 m/s². The first edge holds nine cars and is driven at any speed.
    "curve": (
        Edge("sweeps", 25.0, (Straight(250), Arc(300, 60), Straight(80), Arc(250, -50), Straight(60))),
        Edge("bends", 16.7, (Straight(30), Arc(120, -70), Straight(20), Arc(120, 60), Straight(30))),
        Edge("valley", 22.2, (Straight(100), Arc(200, 50), Straight(50), Arc(220, -60), Straight(60))),
        Edge("hairpins", 13.9, (Straight(25), Arc(60, 80), Straight(10), Arc(60, -100), Straight(15), Arc(80, 60),
                                Straight(25))),
        Edge("forest", 19.4, (Straight(60), Arc(150, -70), Straight(40), Arc(150, 80), Straight(60))),
        Edge("plain", 25.0, (Straight(120), Arc(280, 40), Arc(300, -50), Straight(450))),
    ),
    "arterial": (
        Edge("entry", 22.2, (Straight(300), Arc(600, 12), Straight(280))),
        Edge("suburb", 16.7, (Straight(150), Arc(400, -15), Straight(200))),
        Edge("ring", 19.4, (Straight(200), Arc(500, -10), Straight(220))),
        Edge("centre", 13.9, (Straight(180), Arc(300, 14), Straight(180))),
        Edge("market", 16.7, (Straight(250), Arc(450, 8), Straight(200))),
        Edge("bypass", 22.2, (Straight(300), Arc(800, -16), Straight(250))),
        Edge("exit", 19.4, (Straight(400), Arc(600, 10), Straight(500))),
    ),
}  # fmt: skip


Point = tuple[float, float]


def trace(edge: Edge, start: Point, heading_rad: float) -> tuple[list[Point], float]:
    """The vertices of an edge that begins at ``start``, and the heading at its end."""
    points = [start]
    x, y = start
    for part in edge.parts:
        if isinstance(part, Straight):
            x, y = x + part.length_m * math.cos(heading_rad), y + part.length_m * math.sin(heading_rad)
            points.append((x, y))
            continue
        turn_rad = math.radians(part.turn_deg)
        side = math.copysign(part.radius_m, turn_rad)
        centre_x, centre_y = x - side * math.sin(heading_rad), y + side * math.cos(heading_rad)
        chords = math.ceil(abs(turn_rad) * part.radius_m / ARC_STEP_M)
        for chord in range(1, chords + 1):
            angle = heading_rad + turn_rad * chord / chords
            points.append((centre_x + side * math.sin(angle), centre_y - side * math.cos(angle)))
        heading_rad += turn_rad
        x, y = points[-1]
    return points, heading_rad


def _text(point: Point) -> str:
    # 0.0 + turns -0.0 into 0.0
    return ",".join(f"{0.0 + round(value, 4):.4f}" for value in point)


def write_sources(edges: tuple[Edge, ...], folder: Path) -> None:
    """Writes ``plain.nod.xml`` and ``plain.edg.xml`` of one road."""
    nodes, lines = ['    <node id="n0" x="0.0000" y="0.0000" type="priority"/>'], []
    end, heading_rad = (0.0, 0.0), 0.0
    for number, edge in enumerate(edges):
        points, heading_rad = trace(edge, end, heading_rad)
        end = points[-1]
        x, y = _text(end).split(",")
        nodes.append(f'    <node id="n{number + 1}" x="{x}" y="{y}" type="priority"/>')
        lines.append(
            f'    <edge id="{edge.id}" from="n{number}" to="n{number + 1}" numLanes="1" speed="{edge.limit_mps}"'
            f' spreadType="center" shape="{" ".join(map(_text, points))}"/>'
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plain.nod.xml").write_text("\n".join(["<nodes>", *nodes, "</nodes>", ""]), encoding="utf-8")
    (folder / "plain.edg.xml").write_text("\n".join(["<edges>", *lines, "</edges>", ""]), encoding="utf-8")


def _netconvert() -> str:
    beside = Path(sys.executable).with_name("netconvert")
    found = str(beside) if beside.exists() else shutil.which("netconvert")
    if found is None:
        sys.exit("netconvert is not installed; pip install eclipse-sumo brings it.")
    return found


def build_network(sources: Path, net_file: Path) -> None:
    """Runs netconvert on the plain XML in ``sources`` and removes the comment with date and machine."""
    command = [
        _netconvert(),
        "--node-files", str(sources / "plain.nod.xml"),
        "--edge-files", str(sources / "plain.edg.xml"),
        "--output-file", str(net_file),
        "--precision", "6",
        "--offset.disable-normalization", "true",
        "--no-turnarounds", "true",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text = net_file.read_text(encoding="utf-8")
    net_file.write_text(re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Rebuilds the networks of the base scenarios.")
    parser.add_argument(
        "--into", type=Path, default=BASE, help="folder that gets <road>/sources and <road>/network.net.xml"
    )
    folder = parser.parse_args().into
    for road, edges in ROADS.items():
        write_sources(edges, folder / road / "sources")
        build_network(folder / road / "sources", folder / road / "network.net.xml")


if __name__ == "__main__":
    main()
