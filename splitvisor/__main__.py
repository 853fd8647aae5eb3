# SPDX-License-Identifier: GPL-2.0-or-later
"""The program `splitvisor`, also `python -m splitvisor`."""

from splitvisor.process.signals import end_quietly


def main() -> None:
    """Run the command line and exit."""
    end_quietly()  # Before the command line is loaded.
    from splitvisor.cli import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
