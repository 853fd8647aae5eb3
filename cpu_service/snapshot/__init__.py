# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as bytes, and back: saved, restored, and moved to another cpu_service."""
