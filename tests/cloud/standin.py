"""Stands in for the program: makes runs and datasets as verbs do, and ends as it is told.

python standin.py VERB [--runs-dir DIR] [--datasets-dir DIR] [--code N] [--steps N] [--deaf]
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from roadsense.files import write_bytes, write_json
from roadsense.runs import COMPLETE, RunFolder
from tests.stored import make_dataset

STEP_S = 0.1


def work(asked: argparse.Namespace) -> int:
    run = RunFolder(asked.runs_dir / "s7")
    dataset = asked.datasets_dir / "d7"
    if not dataset.exists():
        make_dataset(dataset)
    write_json(run.path / "config.json", {"seed": 7})
    write_json(run.path / "progress.json", {"generate": {"dataset_dir": str(dataset), "made_with": {}}})
    run.set_status("running train")
    last = run.path / "checkpoints" / "last.txt"
    step = int(last.read_text()) if last.is_file() else 0
    try:
        while step < asked.steps:
            time.sleep(STEP_S)
            step += 1
            if asked.deaf:
                write_bytes(last, b"%d" % step)
            print(f"step {step}", flush=True)
    except KeyboardInterrupt:
        time.sleep(5 * STEP_S)  # a second interrupt would meet it here
        write_bytes(last, b"%d" % step)
        print("saved", flush=True)
        return 75
    if asked.code in (0, 3):
        run.set_status(COMPLETE)
        run.write_checksums()
    return asked.code


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--datasets-dir", type=Path, default=Path("scenarios/datasets"))
    parser.add_argument("--code", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--deaf", action="store_true")
    stated = parser.parse_args()
    if stated.deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if stated.verb == "die":
        signal.raise_signal(signal.SIGKILL)
    sys.exit(work(stated))
