"""Networks built by SUMO's own tools for tests, and routes through them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import sumolib

TOOLS = Path(sys.executable).parent


def _run(command: list[str], folder: Path) -> None:
    found = shutil.which(command[0], path=f"{TOOLS}:{Path(sumolib.__file__).parent}") or shutil.which(command[0])
    subprocess.run([found or command[0], *command[1:]], cwd=folder, check=True, capture_output=True)


def chain_network(
    folder: Path, lengths_m: list[float], limits_mps: list[float], *, internal: bool = True, lanes: int = 1
) -> Path:
    """A road in pieces e0, e1, …, each with its own length and limit, bent a little at every joint."""
    x = np.cumsum([0.0, *lengths_m])
    nodes = "".join(f'<node id="n{i}" x="{at}" y="{7 * (i % 2)}" type="priority"/>' for i, at in enumerate(x))
    edges = "".join(
        f'<edge id="e{i}" from="n{i}" to="n{i + 1}" numLanes="{lanes}" speed="{limit}" length="{length}"/>'
        for i, (length, limit) in enumerate(zip(lengths_m, limits_mps, strict=True))
    )
    (folder / "chain.nod.xml").write_text(f"<nodes>{nodes}</nodes>")
    (folder / "chain.edg.xml").write_text(f"<edges>{edges}</edges>")
    net = folder / "chain.net.xml"
    plain = [] if internal else ["--no-internal-links"]
    _run(
        ["netconvert", "-n", "chain.nod.xml", "-e", "chain.edg.xml", "--precision", "6", "-o", net.name, *plain], folder
    )
    return net


def random_network(folder: Path, rng: np.random.Generator) -> Path:
    """A net of netgenerate: random, a grid or a spider, one lane a direction, with all sorts of right of way."""
    net = folder / "random.net.xml"
    shape = str(rng.choice(["--rand", "--rand", "--grid", "--spider"]))
    command = ["netgenerate", shape, "-L", "1", "--seed", str(rng.integers(1000)), "-o", net.name, "--no-turnarounds"]
    if shape == "--rand":
        command += ["--rand.iterations", str(rng.integers(2, 30)), "--rand.max-distance", "400", "--random-priority"]
    for option in ("--no-internal-links", "--tls.guess"):
        command += [option] if rng.random() < 0.3 else []
    _run(command, folder)
    return net


def random_route(net: Path, rng: np.random.Generator, least_m: float = 250.0) -> tuple[list[str], list[float]] | None:
    """Edges of a drive at random that meets no edge twice, and their lengths [m]; None where it ends too soon."""
    edges = [edge for edge in sumolib.net.readNet(str(net)).getEdges() if edge.getFunction() != "internal"]
    route = [edges[rng.integers(len(edges))]]
    while len(route) < 30:
        onward = [edge for edge in route[-1].getOutgoing() if edge not in route]
        onward = [edge for edge in onward if edge.getToNode() != route[-1].getFromNode()]
        if not onward:
            break
        route.append(onward[rng.integers(len(onward))])
    lengths_m = [edge.getLength() for edge in route]
    return ([edge.getID() for edge in route], lengths_m) if sum(lengths_m) >= least_m else None
