"""``python -m twinrun``: the same as the ``twinrun`` script, for one interpreter among several."""

from twinrun.cli.main import main

if __name__ == "__main__":
    main()
