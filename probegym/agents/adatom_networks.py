"""What a policy with goals looks at first (torch)."""

from __future__ import annotations

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

CLOSER = 5.0  # how much larger the way to the goal is written


class WayToGoal(BaseFeaturesExtractor):
    """All that is shown in a row (b, features), and the way from the achieved goal to the desired one, enlarged."""

    def __init__(self, observation_space: gym.spaces.Dict):
        sizes = {name: gym.spaces.utils.flatdim(space) for name, space in observation_space.spaces.items()}
        super().__init__(observation_space, sum(sizes.values()) + sizes["desired_goal"])
        self.flat = nn.Flatten()

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        way = CLOSER * (observations["desired_goal"] - observations["achieved_goal"])
        return torch.cat([way, *(self.flat(seen) for seen in observations.values())], 1)
