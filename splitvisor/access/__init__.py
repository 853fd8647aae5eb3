# SPDX-License-Identifier: GPL-2.0-or-later
"""Who a peer is, and what it may do: certificates, identities, and the rule of every rpc."""
