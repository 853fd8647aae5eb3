# SPDX-License-Identifier: GPL-2.0-or-later
"""What every process of Splitvisor does alike: its standard streams, its logs, its imports, its end."""
