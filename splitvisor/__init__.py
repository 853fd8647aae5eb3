# SPDX-License-Identifier: GPL-2.0-or-later
"""What all of Splitvisor's services share, and the command line."""

import os

# gRPC's event engine makes a synchronous round trip half as long again (docs/performance.md); read at grpc's first import.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")

__version__ = "0.1.0"
