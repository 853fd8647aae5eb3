# SPDX-License-Identifier: GPL-2.0-or-later
"""What developers of Splitvisor run: generators of stubs and of the tables in docs/."""
