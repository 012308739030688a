"""`python -m edge_ad` and the command `edge-ad`: signals are taken over before anything else is loaded."""

from __future__ import annotations

import sys

from edge_ad.signals.wakeup import Wakeup


def main() -> int:
    """Run the command line of this process. Returns: the exit code."""
    wakeup = Wakeup()
    wakeup.open()
    from edge_ad.signals.supervisor import give_up, supervise_process, was_interrupted

    try:
        supervise_process(wakeup)
        from edge_ad.cli.main import main as run_command

        return run_command()
    except BaseException:
        if not was_interrupted():
            raise
        return give_up()  # before there was a command


if __name__ == "__main__":
    sys.exit(main())
