"""``python -m fastencode.cli`` is the command ``fastencode-tune``: launchers such as torchrun start modules."""

from fastencode.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
