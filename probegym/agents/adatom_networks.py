"""Networks of the policies that drag adatoms (torch, within SAC of Stable-Baselines3).

The actor starts from the straight drag of the scripts, shifted by how far beside the tip atoms came to rest lately, and learns
what is added to that; the critics are told how far from the goal such a drag would end. What is shipped is the running average
of the actor's weights (Polyak & Juditsky 1992, 10.1137/0330046).
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import Actor, MultiInputPolicy
from torch import nn

from probegym.agents.baselines_adatoms import ALONG, FADES

LATTICE = 2 / 0.288  # lattice constants in the unit of positions and of the end of a drag
START = 0.4 / 0.288  # the same, in the unit of its start
CLOSEST = 0.97  # to the ends of the ranges of an action that the actor starts from
NARROW, LEVEL = -1.5, -0.35  # logarithm of the spread that the actor starts with; 4 uS, before it is squashed
BEHIND = 0.2 / 0.288  # lattice constants behind the atom where the drag starts
CAUTION = 0.1  # learning rate of the actor against that of the critics
MEMORY = 0.998  # of the average, from one step to the next


class Shown(BaseFeaturesExtractor):
    """All that is shown in a row (b, features), before it the way to the goal and how far beside the tip atoms came to rest.

    drags: how many an observation remembers.
    """

    fading: torch.Tensor

    def __init__(self, observation_space: gym.spaces.Dict, drags: int):
        sizes = {name: gym.spaces.utils.flatdim(space) for name, space in observation_space.spaces.items()}
        super().__init__(observation_space, sum(sizes.values()) + 5)
        self.drags = drags
        self.record = (sizes["observation"] - 2) // max(drags, 1)
        self.register_buffer("fading", FADES ** torch.arange(float(drags))[:, None])

    def beside(self, observation: torch.Tensor) -> torch.Tensor:
        """X and y (b, 2) in lattice constants, fading mean of the drags that brought the atom along, and whether there are any (b, 1)."""
        if not self.drags:
            return torch.zeros_like(observation[:, :1]).expand(-1, 3)
        records = observation[:, 2:].reshape(-1, self.drags, self.record)
        missed = records[:, :, -2:]
        along = ((records[:, :, 6] > 0.5) & ((missed * missed).sum(2) < ALONG**2)).float()[..., None]
        weight = along * self.fading
        return torch.cat([(missed * weight).sum(1) / weight.sum(1).clamp_min(1e-9), along.amax(1)], 1)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        way = LATTICE * (observations["desired_goal"] - observations["achieved_goal"])
        return torch.cat([way, self.beside(observations["observation"]), *observations.values()], 1)


class DragActor(Actor):
    """Adds what it has learnt to the shifted straight drag."""

    mu: nn.Linear
    log_std: nn.Linear  # SB3 names the type of its other exploration

    def get_action_dist_params(self, obs: torch.Tensor | dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        features = self.extract_features(obs, self.features_extractor)
        latent = self.latent_pi(features)
        way, beside = features[:, :2], features[:, 2:4]
        behind = BEHIND * way / torch.linalg.vector_norm(way, dim=1, keepdim=True).clamp_min(1e-6)
        aim = torch.cat([(-beside - behind) / START, (way - beside) / LATTICE], 1).clamp(-CLOSEST, CLOSEST)
        straight = 0.5 * torch.log((1 + aim) / (1 - aim))  # the distribution is squashed by tanh
        level = torch.zeros_like(beside) + torch.tensor([0.0, LEVEL])
        mean = self.mu(latent) + torch.cat([straight, level], 1)
        return mean, self.log_std(latent).clamp(-20, 2), {}


class DragCritic(ContinuousCritic):
    """Sees beside the action how far from the goal it would end."""

    def __init__(self, features_dim: int, **kwargs: Any):
        super().__init__(features_dim=features_dim + 2, **kwargs)

    def forward(self, obs: torch.Tensor | dict[str, torch.Tensor], actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.extract_features(obs, self.features_extractor)
        off = LATTICE * actions[:, 2:4] + features[:, 2:4] - features[:, :2]
        told = torch.cat([features, off, actions], 1)
        return tuple(network(told) for network in self.q_networks)


class Cautious(torch.optim.Adam):
    """Adam at a share of the learning rate that a schedule sets: an actor that starts well must not run ahead of its critics."""

    def step(self, closure=None):
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= CAUTION
        loss = super().step(closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate
        return loss


class DragPolicy(MultiInputPolicy):
    """Actor and critics for AdatomManipulation with one atom whose place is shown; ``drags``: how many an observation remembers."""

    actor: DragActor
    followed: torch.Tensor

    def __init__(self, *args: Any, drags: int, **kwargs: Any):
        own = {"features_extractor_class": Shown, "features_extractor_kwargs": {"drags": drags}, "net_arch": [128, 128]}
        super().__init__(*args, **kwargs | own)
        for layer, bias in ((self.actor.mu, 0.0), (self.actor.log_std, NARROW)):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, bias)
        self.actor.optimizer = Cautious(self.actor.parameters())
        self.average = copy.deepcopy(self.actor).requires_grad_(False)
        self.register_buffer("followed", torch.zeros(()))

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> DragActor:
        return DragActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> DragCritic:
        return DragCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average follow the actor by one step, faster at first."""
        self.followed += 1
        share = 1 - min(MEMORY, 1 - 1 / float(1 + self.followed / 3))
        for mean, weight in zip(self.average.parameters(), self.actor.parameters(), strict=True):
            mean.lerp_(weight, share)
