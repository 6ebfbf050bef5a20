"""From a trained policy to actions on an instrument: bundles read with suspicion, and run in a process of their own."""
