"""``python -m fastencode`` is the command ``fastencode-tune``."""

from fastencode.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
