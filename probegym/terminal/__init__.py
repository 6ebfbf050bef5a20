"""What the commands of ``probegym`` do in a terminal, one file a command."""
