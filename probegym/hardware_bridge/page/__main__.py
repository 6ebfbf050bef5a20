"""The page's process, see process.py."""

from probegym.hardware_bridge.page.server import main

if __name__ == "__main__":
    main()
