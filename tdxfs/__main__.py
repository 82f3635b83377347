"""``python -m tdxfs`` is ``tdxfs``."""

from tdxfs.cli import main

if __name__ == "__main__":
    main(prog_name="tdxfs")
