# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests run, and in which processes, is decided in one place for tests/ and examples/."""

pytest_plugins = ("tests.selection",)
