"""The command line: `sandpool demo`, `sandpool run`, `sandpool doctor`."""


def main() -> None:
    """Run the command line; loaded only now, so that importing the package costs nothing."""
    from sandpool.cli.app import app

    app()
