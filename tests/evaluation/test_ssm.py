"""Times to collision and decelerations to avoid a crash, against those that SUMO's own SSM device reports."""

import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from roadsense._data import scenarios_dir
from roadsense.evaluation.surrogates import decel_to_avoid_crash, time_to_collision

pytestmark = pytest.mark.usefixtures("require_sumo")

LENGTH_M = 5.0


def driven(folder, lead_mps, follower_mps, tau_s):
    """What SUMO says of a car that comes up behind a slow one: (gap, closing speed) by step, and the SSM device's."""
    routes = f"""<routes>
    <vType id="slow" length="{LENGTH_M}" maxSpeed="{lead_mps}" sigma="0" speedFactor="1" decel="4.5"/>
    <vType id="fast" length="{LENGTH_M}" maxSpeed="{follower_mps}" sigma="0" speedFactor="1" decel="4.5" tau="{tau_s}">
        <param key="has.ssm.device" value="true"/>
    </vType>
    <route id="r" edges="straight"/>
    <vehicle id="lead" type="slow" depart="0" departPos="150" departSpeed="{lead_mps}" route="r"/>
    <vehicle id="ego" type="fast" depart="0" departPos="20" departSpeed="{follower_mps}" route="r"/>
</routes>"""
    (folder / "cars.rou.xml").write_text(routes)
    options = {
        "net-file": scenarios_dir() / "base" / "straight" / "network.net.xml", "route-files": folder / "cars.rou.xml",
        "step-length": 0.1, "end": 25, "precision": 6, "fcd-output": folder / "fcd.xml",
        "device.ssm.file": folder / "ssm.xml", "device.ssm.measures": "TTC DRAC", "device.ssm.range": 200,
        "device.ssm.thresholds": "1000 0.0", "device.ssm.trajectories": "true", "no-step-log": "true",
    }  # fmt: skip
    command = [shutil.which("sumo"), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    subprocess.run(command, check=True, capture_output=True)
    found = {}
    for step in ET.parse(folder / "fcd.xml").getroot():
        cars = {car.get("id"): (float(car.get("pos")), float(car.get("speed"))) for car in step}
        if len(cars) == 2:
            (ego_m, ego_mps), (lead_m, lead_speed) = cars["ego"], cars["lead"]
            found[float(step.get("time"))] = lead_m - LENGTH_M - ego_m, ego_mps - lead_speed
    gap_m, closing_mps = np.array(list(found.values())).T
    conflict = ET.parse(folder / "ssm.xml").getroot().find("conflict")
    ttc, drac = conflict.find("minTTC"), conflict.find("maxDRAC")
    return gap_m, closing_mps, float(ttc.get("value")), float(drac.get("value"))


@pytest.mark.skipif(shutil.which("sumo") is None, reason="needs the SUMO programs (the extra `sumo`)")
@pytest.mark.parametrize(("lead_mps", "follower_mps", "tau_s"), [(5.0, 20.0, 1.0), (2.0, 13.0, 0.3), (10.0, 20.0, 0.5)])
def test_minimum_ttc_and_maximum_drac_are_those_of_sumo(tmp_path, lead_mps, follower_mps, tau_s):
    gap_m, closing_mps, ttc_s, drac_mps2 = driven(tmp_path, lead_mps, follower_mps, tau_s)
    assert len(gap_m) > 200
    assert time_to_collision(gap_m, closing_mps).min() == pytest.approx(ttc_s, abs=1e-3)
    assert decel_to_avoid_crash(gap_m, closing_mps).max() == pytest.approx(drac_mps2, abs=1e-3)
    assert drac_mps2 > 0.5
