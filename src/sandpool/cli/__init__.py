"""The command line: `sandpool demo`, `run`, `doctor` and `bench`."""


def main() -> None:
    """Run the command line; loaded only now, so that importing the package costs nothing."""
    from sandpool.cli.app import app

    app()
