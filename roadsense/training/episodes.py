"""Where worlds stand, as a value that leads there again.

An engine's state cannot be saved to the bit, but an episode follows from its seed and its actions alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.player import Player
from roadsense.errors import InputMismatchError


class DrivenOtherwiseError(InputMismatchError):
    """Episodes that are driven again do not come to where they were."""


class Episodes(NamedTuple):
    """The episodes under way in some worlds. Whoever drives them again with these actions stands where they stand."""

    roots: NDArray[np.uint64]
    """[world], what each was seeded with."""
    played: NDArray[np.int64]
    """[world], episodes begun, the one under way included."""
    steps: NDArray[np.int64]
    """[world], how far it is."""
    actions: NDArray[np.float64]
    """[step, world], as applied; zeros where a world is not as far."""

    @classmethod
    def begun(cls, roots: NDArray[np.uint64], played: NDArray[np.int64]) -> Episodes:
        """Episodes at their first observation."""
        return cls(roots.copy(), played.copy(), np.zeros(len(roots), np.int64), np.zeros((0, len(roots))))

    def of(self, worlds: slice) -> Episodes:
        """Those of some of the worlds."""
        steps = self.steps[worlds]
        return Episodes(self.roots[worlds], self.played[worlds], steps, self.actions[: steps.max(), worlds])

    def stand_as(self, others: Episodes) -> NDArray[np.bool_]:
        """Which worlds stand where the others stand, [world]."""
        same = (self.roots == others.roots) & (self.played == others.played) & (self.steps == others.steps)
        common = min(len(self.actions), len(others.actions))  # as far as any that is equally far in both
        equal: NDArray[np.bool_] = same & (self.actions[:common] == others.actions[:common]).all(0)
        return equal

    def after(self, applied: NDArray[np.float64], ended: NDArray[np.bool_]) -> Episodes:
        """Where they stand some steps later.

        Args:
            applied: [step, world], the actions of these steps.
            ended: [step, world], whether the episode ended with that step; the next one then began.
        """
        count = len(applied)
        since_end = np.where(ended.any(0), ended[::-1].argmax(0), self.steps + count)
        actions = np.zeros((int(since_end.max()), len(self.roots)))
        for world, steps in enumerate(since_end.tolist()):
            driven = np.concatenate([self.actions[: self.steps[world], world], applied[:, world]])
            actions[:steps, world] = driven[len(driven) - steps :]
        return Episodes(self.roots, self.played + ended.sum(0), since_end, actions)


def drive_again(player: Player, episodes: Episodes, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Begins episodes again and drives them, with the same actions, to where they stood; other worlds stay as they are.

    Args:
        player: whose worlds they are.
        episodes: of all worlds.
        chosen: [world], those to drive.

    Returns:
        [world], sums of rewards on the way.

    Raises:
        DrivenOtherwiseError: an episode ends on the way, so this is not the world those actions were chosen in.
    """
    for world in np.flatnonzero(chosen).tolist():
        player.reseed(world, int(episodes.roots[world]), int(episodes.played[world]) - 1)
    player.begin(chosen)
    worlds, totals = player.worlds, np.zeros(player.num_worlds)
    for step in range(int(episodes.steps[chosen].max(initial=0))):
        driven = chosen & (episodes.steps > step)
        worlds.step(episodes.actions[step], driven)
        totals[driven] += worlds.rewards[driven]
        if worlds.records["end_reason"][driven].any():
            raise DrivenOtherwiseError(f"an episode that was under way ends at step {step + 1} when driven again.")
    return totals
