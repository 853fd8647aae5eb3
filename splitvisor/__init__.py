# SPDX-License-Identifier: GPL-2.0-or-later
"""What all of Splitvisor's services share, and the command line."""

import os

# gRPC's event engine costs a synchronous round trip 60 to 90 us (docs/performance.md); read when grpc is first imported.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")

__version__ = "0.1.0"
