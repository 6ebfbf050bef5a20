"""The only writer to an instrument: checks, budgets, arming, and an independent guardian that knows only how to go safe."""
