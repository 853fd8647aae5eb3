# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine and the image, once for all tests here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.guests.harness import ROOT
from tests.stack.compose import Compose
from tests.stack.engine import Engine

NewCompose = Callable[..., Compose]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A container engine; it is ended after, and must have left nothing behind."""
    engine = Engine()
    yield engine
    try:
        left = engine.left_over()
        engine.remove_everything()
    finally:
        engine.close()
    assert left == []
    assert engine.processes() == []
    assert engine.mounts() == []


@pytest.fixture(scope="session")
def new_compose(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> NewCompose:
    """Make a project of a name, with variables for docker-compose.yml. The image is built before the first."""
    if not (ROOT / "gateway_service/static/vendor/xterm.mjs").exists():
        pytest.skip("the gateway's part of the image needs xterm.js: run ./dev web, which needs npm")
    directory = tmp_path_factory.mktemp("compose")
    Compose(engine, "build", directory).build()
    return lambda project, **variables: Compose(engine, project, directory, variables)
