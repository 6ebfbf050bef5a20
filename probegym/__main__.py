"""``python -m probegym`` is the ``probegym`` command."""

from probegym.cli import main

main()
