"""``python -m s3torchconnector``: the command ``s3torch``."""

from s3torchconnector._cli import main

if __name__ == "__main__":
    main()
