"""Networks of the policies that drag adatoms (torch, within SAC of Stable-Baselines3).

The actor starts from the straight drag, whose end is the goal, and learns what is added to that; the critics are told how far from
the goal a drag ends, in lattice constants as in the records of earlier drags.
"""

from __future__ import annotations

import gymnasium as gym
import torch
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import Actor, MultiInputPolicy
from torch import nn

LATTICE = 2 / 0.288  # lattice constants in the unit of positions and of the end of a drag
END = slice(2, 4)  # of an action: where the drag ends
FARTHEST = 0.97  # of an end that the actor starts from
NARROW = -1.5  # logarithm of the spread that the actor starts with


def way(observations: dict[str, torch.Tensor]) -> torch.Tensor:
    """From the atom to its goal (b, 2)."""
    return observations["desired_goal"] - observations["achieved_goal"]


class Seen(BaseFeaturesExtractor):
    """The way to the goal in lattice constants, and all that is shown, in a row (b, features)."""

    def __init__(self, observation_space: gym.spaces.Dict):
        sizes = {name: gym.spaces.utils.flatdim(space) for name, space in observation_space.spaces.items()}
        super().__init__(observation_space, sum(sizes.values()) + sizes["desired_goal"])

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([LATTICE * way(observations), *observations.values()], 1)


class DragActor(Actor):
    """Adds what it has learnt to the straight drag."""

    def get_action_dist_params(self, obs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        mean, log_std, more = super().get_action_dist_params(obs)
        aim = way(obs).clamp(-FARTHEST, FARTHEST)
        straight = 0.5 * torch.log((1 + aim) / (1 - aim))  # the distribution is squashed by tanh
        before, end, after = mean[:, : END.start], mean[:, END], mean[:, END.stop :]
        return torch.cat([before, end + straight, after], 1), log_std, more


class DragCritic(ContinuousCritic):
    """Sees beside the action how far from the goal it ends."""

    def __init__(self, *args, features_dim: int, **kwargs):
        super().__init__(*args, features_dim=features_dim + 2, **kwargs)

    def forward(self, obs: dict[str, torch.Tensor], actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.extract_features(obs, self.features_extractor)
        beside = LATTICE * (actions[:, END] - way(obs))
        told = torch.cat([features, beside, actions], 1)
        return tuple(network(told) for network in self.q_networks)


class DragPolicy(MultiInputPolicy):
    """Actor and critics of SAC for AdatomManipulation with one atom whose place is shown."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs | {"features_extractor_class": Seen, "net_arch": [128, 128]})
        nn.init.zeros_(self.actor.mu.weight)
        nn.init.zeros_(self.actor.mu.bias)
        nn.init.zeros_(self.actor.log_std.weight)
        nn.init.constant_(self.actor.log_std.bias, NARROW)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> DragActor:
        return DragActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> DragCritic:
        return DragCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)
