"""A page in a browser on this machine, for a person who plays."""
