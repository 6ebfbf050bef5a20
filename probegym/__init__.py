"""ProbeGym: reinforcement-learning environments for microscopes whose probe is an electron beam or a sharp tip."""

from importlib.metadata import PackageNotFoundError, version

import gymnasium

try:
    __version__ = version("probegym")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

ENVIRONMENTS = {
    "probegym/StemTuning-v0": "probegym.envs.stem_tuning:StemTuning",
    "probegym/AfmTuning-v0": "probegym.envs.afm_tuning:AfmTuning",
    "probegym/TipConditioning-v0": "probegym.envs.tip_conditioning:TipConditioning",
    "probegym/LevelSelection-v0": "probegym.envs.level_selection:LevelSelection",
    "probegym/SpectrumExploration-v0": "probegym.envs.spectrum_exploration:SpectrumExploration",
    "probegym/BeamManipulation-v0": "probegym.envs.beam_manipulation:BeamManipulation",
    "probegym/AdatomManipulation-v0": "probegym.envs.adatom_manipulation:AdatomManipulation",
    "probegym/IsingInference-v0": "probegym.envs.ising_inference:IsingInference",
}
"""Id -> entry point. The vector environment of ``X`` is ``XVector`` beside it."""

for _id, _entry_point in ENVIRONMENTS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(id=_id, entry_point=_entry_point, vector_entry_point=f"{_entry_point}Vector")
