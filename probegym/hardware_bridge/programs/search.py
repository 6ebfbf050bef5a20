"""Search in strings of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from probegym.hardware_bridge.programs.alphabet import Alphabet, Tokens
from probegym.hardware_bridge.programs.blocks import Program


def hill_climb(
    alphabet: Alphabet,
    score: Callable[[Program], float],
    start: str | Sequence[str],
    evaluations: int,
    rng: np.random.Generator,
    most_changes: int = 4,
) -> tuple[Tokens, float]:
    """The best string found and its score: one to ``most_changes`` mutations at once, kept where the score is not lower.

    Strings that stand for a program that was tried already are not evaluated again. score: in any unit, higher is better; it must be the same
    whenever it is asked for the same program, so let it use the same episodes.
    """
    best = alphabet.encode(program := alphabet.decode(start))
    tried = {program: score(program)}
    held, idle = tried[program], 0
    while len(tried) < evaluations and idle < 100 * evaluations:
        changed = best
        for _ in range(rng.integers(1, most_changes + 1)):
            changed = alphabet.mutate(changed, rng)
        program = alphabet.decode(changed)
        idle += 1
        if program not in tried:
            tried[program], idle = score(program), 0
        if tried[program] >= held:
            best, held = alphabet.encode(program), tried[program]
    return best, held
