"""The one exception for mistakes a user can mend: its message is one line that names the mend."""


class ProbeGymError(Exception):
    """What was wrong and how to mend it, in one line."""
