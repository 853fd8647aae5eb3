# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the NBD protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md)."""
