# SPDX-License-Identifier: GPL-2.0-or-later
"""A back end's side of the trap stream: from a message to a session's handler and back."""
