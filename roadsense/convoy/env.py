"""``Convoy-v0``: one world of the convoy as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import HORIZON_STEPS, INFO_SCALARS, RENDERING, check_render_mode
from roadsense.convoy.player import Player
from roadsense.convoy.reward import REWARD_TERMS
from roadsense.convoy.show import make_show
from roadsense.convoy.spaces import action_space, observation_space
from roadsense.convoy.world import MAX_PEERS, is_termination, is_truncation
from roadsense.errors import ActionError

_FIRST = np.ones(1, np.bool_)


class ConvoyEnv(gym.Env[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """Drive V001 in a convoy, knowing the other cars only through what they broadcast by radio.

    A human drives V001; the policy is the assistant that may brake for him. Peers V002, V003, … broadcast their state
    ten times a second over ESP-NOW, and messages get lost, late and stale. In most episodes one car ahead brakes hard
    or stands still while the human does not look. A good policy brakes in time, and never for nothing.

    ```python
    import gymnasium as gym
    import roadsense

    env = gym.make("Convoy-v0")
    observation, info = env.reset(seed=7)
    observation, reward, terminated, truncated, info = env.step([0.0])
    env.close()
    ```

    ## Action

    | `control` | space | meaning |
    |---|---|---|
    | `"brake"` (default) | `Box(0, 1, (1,))` | u asks for 8u m/s². u < 0.05 asks for nothing and leaves the driver alone; else the harder of driver and assistant brakes. |
    | `"acceleration"` | `Box(-1, 1, (1,))` | the policy drives alone: -1 is 8 m/s² of braking, 0 none, +1 the car's full acceleration (2.6 m/s²). |

    Both pass a first-order actuator (0.2 s) and the car's limits. A car that the assistant braked below 1 m/s while the
    driver does not look is held at a standstill. Values outside the space are clipped, NaN is refused.

    ## Observation

    `Dict(ego, peers, peer_mask)`, float32 and int8. Peers are a set: their rows stand in a new random order at every
    step, `peer_mask` says which rows are used, unused rows are zeros, and the capacity means nothing. Every feature is
    the raw value divided by its scale and clipped to the bounds. Nothing here bypasses the radio or the ego's own noisy
    sensors: a peer is in the table while its newest message arrived at most 0.5 s ago.

    | part | column | feature | unit | scale | bounds | meaning |
    |---|---|---|---|---|---|---|
    | `ego` | 0 | speed | m/s | 30 | 0 … 2 | own speed, own sensor |
    | `ego` | 1 | accel | m/s² | 9 | -2 … 2 | own acceleration, own sensor |
    | `ego` | 2 | previous_action | 1 | 1 | -1 … 1 | action of the step before |
    | `ego` | 3 | heard_share | 1 | 1 | 0 … 1 | beacons heard in the last second of those expected from the peers in the table |
    | `peers` | 0 | forward | m | 100 | -4 … 4 | offset ahead, ego frame |
    | `peers` | 1 | left | m | 100 | -4 … 4 | offset to the left, ego frame |
    | `peers` | 2 | relative_speed | m/s | 20 | -3 … 3 | peer's speed minus own |
    | `peers` | 3 | sin_heading | 1 | 1 | -1 … 1 | sine of heading minus own |
    | `peers` | 4 | cos_heading | 1 | 1 | -1 … 1 | cosine of heading minus own |
    | `peers` | 5 | accel | m/s² | 9 | -2 … 2 | acceleration the peer reported |
    | `peers` | 6 | age | s | 0.5 | 0 … 4 | time since the message arrived |
    | `peers` | 7 | hops | 1 | 3 | 0 … 1 | relays the message went through |

    Offsets are between both cars' own position estimates, in the ego's frame; the peer's is carried on by its reported
    speed and heading for the age of the message. With `messages_per_peer=k` the k newest messages of every peer are rows.

    `roadsense.convoy.wrappers.PeerSequence` shows the used rows alone, as a `Sequence` space.

    ## Reward

    From the truth alone, each step the sum of five terms, all at most 0 (constants: `RewardConfig`):

    | term | when |
    |---|---|
    | `collision` | contact; -100 and more with the square of the impact speed, at most -300 |
    | `unsafe_gap` | the required deceleration exceeds 2 m/s², or a moving car is closer than 3 m |
    | `unneeded_braking` | the request exceeds 1.25 × the required deceleration + 0.5 m/s²; a fifth of it during a hazard |
    | `jerk` | of the car itself |
    | `missed_progress` | the gap exceeds 8 m + 2.5 s of the leader's speed |

    ## End of an episode

    `terminated` on contact of V001: its front bumper at or beyond the rear bumper of the car ahead on its route (a
    collision), or its rear bumper reached by the car behind. `truncated` otherwise. `info["end_reason"]`: 0 running,
    1 collision, 2 horizon (400 steps), 3 end of the route, 4 two peers touched (the episode is invalid and must not be
    counted), 5 the car behind ran into V001.

    ## Info

    Fixed keys: `reward_terms` (dict of five), `gap_m` (infinite without a car ahead), `closing_speed_mps`,
    `required_decel_mps2` (over all cars ahead), `hazard_phase` (0 none yet, 1 active, 2 over), `hazard_rank` (1 = the
    next car ahead that transmits, 0 = no hazard), `end_reason`, `beacons_received` and `beacons_lost` of this step (length `max_peers`). All
    of it is the truth: it is for metrics, never for a policy.

    ## Seeds

    Everything random in an episode comes from one seed. `reset(seed=s)` begins the first episode of s; every further
    `reset()` the next. World i of `gym.make_vec("Convoy-v0", num_envs=n)` seeded s is this environment seeded s + i.

    `reset(options={"scenario_id": …})` plays that scenario and shifts no other draw; `options={"episode": {…}}`
    overrides ranges of its `episode.json`, as in `{"hazard.rank": (1, 1), "hazard.release_share": 0.0}`.

    Args:
        dataset_dir: Root of a dataset made by `roadsense generate`; its files are hashed against its manifest first.
            None plays a built-in set of three roads with four peers each.
        split: `"train"` draws a scenario for every episode (and varies the radio within its stated ranges); `"val"`
            and `"eval"` are walked in order.
        scenario_list: Ids to keep; they are walked in this order.
        scenario: One scenario directory or `.sumocfg` file instead: any SUMO scenario that has a vehicle V001.
        radio: Radio parameters: `"convoy"`, `"drive"`, `"5m"`, `"stationary_60_200"`, `"ideal"`, a JSON file, or a
            degradation: `"off"`, `"delayed:<ms>"`, `"lossy:<p>,<burst>"`, `"spoofed"`. Of a list every episode draws
            one by its seed. Default: the dataset's own, else `"convoy"`.
        engine: Who moves the cars: `"sumo"` (libsumo, in this process where nobody else uses it, else in a worker
            process); `"native"`, SUMO's car following to the bit and many times as fast, which refuses by name what it
            cannot express; `"auto"`, native where it can drive all scenarios, else SUMO; or `"traci"`.
        control: `"brake"` or `"acceleration"`.
        max_peers: Capacity; a scenario with more cars beside V001 is refused.
        messages_per_peer: Newest messages of each peer in the observation.
        horizon_steps: Longest episode [steps of 0.1 s].
        reward: Constants of `RewardConfig` to change, by name.
        render_mode: `"ansi"` lets `render()` return a line of text, `"rgb_array"` a picture from above ([320, 960, 3],
            uint8; no display needed), and `"human"` shows that picture in a window at every reset and step (pygame
            where it is installed, else tkinter).

    Raises:
        UsageError: An argument names something that does not exist.
        InputMismatchError: A file of the dataset has changed since it was generated.
        ScenarioError: A scenario cannot be read or played.
        ParamsError: Radio parameters are not valid.
    """  # noqa: E501

    metadata = RENDERING

    def __init__(
        self,
        *,
        dataset_dir: str | None = None,
        split: str = "train",
        scenario_list: Sequence[str] | None = None,
        scenario: str | None = None,
        radio: str | Sequence[str] | None = None,
        engine: str = "sumo",
        control: str = "brake",
        max_peers: int = MAX_PEERS,
        messages_per_peer: int = 1,
        horizon_steps: int = HORIZON_STEPS,
        reward: Mapping[str, float] | None = None,
        render_mode: str | None = None,
    ) -> None:
        check_render_mode(render_mode)
        self.player = Player(
            1, dataset_dir=dataset_dir, split=split, scenario_list=scenario_list, scenario=scenario, radio=radio,
            engine=engine, control=control, max_peers=max_peers, messages_per_peer=messages_per_peer,
            horizon_steps=horizon_steps, reward=reward,
        )  # fmt: skip
        self.observation_space = observation_space(self.player.config.num_rows)
        self.action_space = action_space(control)
        self._actions = np.zeros(1)
        self.render_mode = render_mode
        self._show = make_show(render_mode)
        self._bind()

    def _bind(self) -> None:
        """Takes views of the arrays that every step rewrites; looking each up anew would cost as much as a kernel."""
        self.worlds = self.player.worlds
        records, air, seen = self.worlds.records, self.worlds.emulator.state, self.worlds.observation
        self._record = records[0]
        self._scalars = [(name, records[name]) for name in INFO_SCALARS]
        self._end_reason = records["end_reason"]
        self._terms = self.worlds.terms[0]
        self._received, self._lost = air.received[0, 1:], air.lost[0, 1:]
        self._ego, self._peers, self._mask = seen.ego[0], seen.peers[0], seen.peer_mask[0]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Begins an episode, also after ``close``; see the class for ``options``."""
        if self.player.closed:
            self.player.open()
            self._bind()
        first = self._np_random is None
        super().reset(seed=seed)
        if seed is not None:
            self.player.reseed(0, seed)
        elif first:
            self.player.reseed(0, int(self.np_random.integers(2**31)))
        self.player.begin(_FIRST, options)
        if self._show is not None:
            self._show.moved(self.worlds)
        return self._observation(), self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], SupportsFloat, bool, bool, dict[str, Any]]:
        """Applies an action for 0.1 s; values outside the action space are clipped, NaN is refused."""
        if len(action) != 1:
            raise ActionError(f"the action has {len(action)} numbers; this environment takes one.")
        self._actions[0] = action[0]
        self.worlds.step(self._actions)
        if self._show is not None:
            self._show.moved(self.worlds)
        reason = int(self._end_reason[0])
        terminated, truncated = is_termination(reason), is_truncation(reason)
        return self._observation(), float(self.worlds.rewards[0]), terminated, truncated, self._info()

    def _observation(self) -> dict[str, NDArray[Any]]:
        return {"ego": self._ego.copy(), "peers": self._peers.copy(), "peer_mask": self._mask.copy()}

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {name: values[0] for name, values in self._scalars}
        info["reward_terms"] = dict(zip(REWARD_TERMS, self._terms.tolist(), strict=True))
        info["beacons_received"] = self._received.copy()
        info["beacons_lost"] = self._lost.copy()
        return info

    def render(self) -> str | NDArray[np.uint8] | None:  # type: ignore[override]
        """What ``render_mode`` says: a line of text (time, own speed, gap, request, hazard phase, peers heard), a
        picture [320, 960, 3] uint8, or None where a window shows it.
        """
        if self._show is None:
            gym.logger.warn('render() needs a render_mode at gym.make: "ansi", "rgb_array" or "human".')
            return None
        shown = self._show.of(self.worlds)
        return None if shown is None else shown[0]

    def close(self) -> None:
        """Gives the engine back; calling it again does nothing."""
        self.player.close()
        if self._show is not None:
            self._show.close()
