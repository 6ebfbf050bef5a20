"""Twins: the physics of an instrument behind the commands that the instrument itself is given."""
