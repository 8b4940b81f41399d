"""An export without its recording, its closed loop and its timing, which have tests of their own."""

from roadsense.export.formats import check_formats, known_formats, write_parity
from roadsense.export.make import make, settle, workplace
from roadsense.export.recording import Recording
from roadsense.policies.runtime import Policy

from ..policies.networks import random_observations

SEEN = random_observations(2000, 5)


def recorded(observations=SEEN, calibration=None):
    """A recording that is compared and, unless told otherwise, calibrated on."""
    return Recording(
        observations=observations, calibration=calibration or observations, origin={"suites": "none, made up"}
    )


def export(folder, names, recording=None):
    """Makes formats, compares them and puts them into a run; what came of it, and the files."""
    recording = recording or recorded()
    Policy.load(folder)
    with workplace(folder) as work:
        result = make(work, check_formats(names), recording, known_formats(folder))
        files = settle(work, folder, result)
    write_parity(folder, result.facts, recording.origin)
    return result, files
