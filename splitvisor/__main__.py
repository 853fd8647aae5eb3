# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m splitvisor`."""

from splitvisor.cli import main

if __name__ == "__main__":
    main()
