"""Section of a card on what the policy was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roadsense.export.card.evidence import TRAINING_NAME, Evidence, reading
from roadsense.export.card.text import code, figure, paragraph, plain, section
from roadsense.manifest import MANIFEST_NAME, SPLITS
from roadsense.markdown import table


def saw(evidence: Evidence) -> str:
    """Training and dataset."""
    return section("What it was trained on", _training(evidence), *_dataset(evidence))


def _training(evidence: Evidence) -> str:
    if not evidence.training:
        return f"How it was trained is not recorded in the run ({evidence.lacks(TRAINING_NAME)})."
    with reading(evidence.run / TRAINING_NAME):
        found, config = evidence.training, evidence.config
        further, best = config.get("further_radios") or [], found.get("best") or {}
        own = config.get("emulator_params")
        radio = code(own) if own else "the dataset's" + (f" ({code(evidence.radio)})" if evidence.radio else "")
        rows = [
            ("algorithm", code(config["algorithm"])),
            ("seed", config["seed"]),
            ("steps", f"{found['timesteps']:,}" + ("" if found.get("finished") else ", **not finished**")),
            ("radio", radio),
            ("further radios", ", ".join(map(code, further)) or "none"),
        ]
        if "timesteps" in best:
            rows.append(("weights kept", f"those after {best['timesteps']:,} steps, chosen on `val/`"))
        if not evidence.manifest:
            rows.append(("dataset", f"SHA-256 {code(found['dataset_digest'])}"))
        return table(("Training", ""), rows)


def _dataset(evidence: Evidence) -> list[str]:
    manifest = evidence.manifest
    if not manifest:
        return [paragraph(f"Its scenarios are not described in the run ({evidence.lacks(MANIFEST_NAME)}).")]
    with reading(evidence.run / MANIFEST_NAME):
        splits = {name: manifest["splits"][name] for name in SPLITS if manifest["splits"].get(name)}
        roads = list(dict.fromkeys(str(one.get("base", "unnamed")) for of in splits.values() for one in of))
        rows = []
        for name, of in splits.items():
            peers = [one["peer_count"] for one in of]
            on = [sum(str(one.get("base", "unnamed")) == road for one in of) for road in roads]
            rows.append((code(f"{name}/"), len(of), *on, f"{min(peers)} to {max(peers)}"))
        ranges = ", ".join(f"{code(name)} {span(of)}" for name, of in (manifest.get("ranges") or {}).items())
        return [
            paragraph(
                f"Dataset {code(manifest['dataset_id'])}, SHA-256 {code(manifest['content_digest'])}, radio parameters"
                f" SHA-256 {code(manifest.get('emulator_params_hash', 'unknown'))}. Scenarios, by road:"
            ),
            table(("Split", "Scenarios", *map(code, roads), "Peers"), rows),
            paragraph(_new_roads(splits), f"Ranges of all of them: {ranges}." if ranges else ""),
        ]


def _new_roads(splits: Mapping[str, list[Mapping[str, Any]]]) -> str:
    trained, judged = ({one.get("base") for one in splits.get(name, [])} for name in ("train", "eval"))
    new = sorted(str(road) for road in judged - trained)
    return f"Of `eval/`, training never drove on {', '.join(map(code, new))}." if new and trained else ""


def span(of: Any) -> str:
    """A range, or a single value, in words."""
    return " to ".join(dict.fromkeys(figure(one) for one in of)) if isinstance(of, list) else plain(of)


def most_peers(evidence: Evidence) -> int | None:
    """Most peers of a scenario of training; None where nothing tells."""
    with reading(evidence.run / MANIFEST_NAME):
        of = (evidence.manifest.get("splits") or {}).get("train") or []
        return max((one["peer_count"] for one in of), default=None)
