# SPDX-License-Identifier: GPL-2.0-or-later
"""What writers of back ends get from splitvisor.backend, and how back ends are added to a machine."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from splitvisor.backend import Backend, Session, tree_node
from splitvisor.limits import MAX_FURTHER_BACKENDS
from splitvisor.machine.config import BackendAddress, ConfigError, MachineConfig
from splitvisor.machine.machine_file import apply_flags, read_machine_file
from splitvisor.machine.service_addresses import parse_backends


@pytest.mark.parametrize("name", ["", "Echo", "9lives", "a b", "a/b", "x" * 64])
def test_a_back_end_needs_a_name_that_sockets_and_flags_can_have(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name for a back end; give"):
        Backend(name, Session)


def test_properties_are_encoded_as_the_device_tree_has_them() -> None:
    node = tree_node("/vdevice/x@1", {"reg": 1, "interrupts": (0x11F0, 0), "compatible": "a,b", "raw": b"\1\2", "flag": b""})
    assert node.path == "/vdevice/x@1"
    assert [(each.name, each.value) for each in node.properties] == [
        ("reg", b"\0\0\0\1"), ("interrupts", b"\0\0\x11\xf0\0\0\0\0"), ("compatible", b"a,b\0"), ("raw", b"\1\2"), ("flag", b""),
    ]  # fmt: skip
    with pytest.raises(struct.error):
        tree_node("/x", {"reg": 1 << 32})


def test_back_ends_come_from_the_file_and_the_flags_and_stand_after_our_own(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text('[[backend]]\nname = "echo"\naddress = "unix:/run/echo.sock"\n')
    flags = {"backend": parse_backends(["a=unix:/a, b=127.0.0.1:7", "c=unix:/c=d"])}
    message = apply_flags(read_machine_file(file), flags).message({"vio_service": "unix:/run/vio.sock"})
    assert [(each.name, each.address) for each in message.backends] == [
        ("vio_service", "unix:/run/vio.sock"), ("echo", "unix:/run/echo.sock"),
        ("a", "unix:/a"), ("b", "127.0.0.1:7"), ("c", "unix:/c=d"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (["echo"], "echo has no address"),
        (["=unix:/a"], "'' is no name"),
        (["E=unix:/a"], "'E' is no name"),
        (["a=unix:/a", "a=unix:/b"], "a is taken"),
        (["vio_service=unix:/a"], "vio_service is taken"),
        (["a=unix:relative"], "absolute path"),
        (["a=nonsense"], "not an address"),
        ([f"b{number}=unix:/b" for number in range(MAX_FURTHER_BACKENDS + 1)], "are too many"),
    ],
)
def test_a_back_end_that_cannot_be_is_one_line(values: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match="splitvisor run: --backend: ") as raised:
        apply_flags(MachineConfig(), {"backend": parse_backends(values)})
    assert what in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        'backend = "echo"',
        "[[backend]]",
        '[[backend]]\nname = "a"\naddress = 3',
        '[[backend]]\nname = "a"\naddress = "unix:/a"\nport = "7"',
        '[backend]\nname = "a"\naddress = "nowhere"',
    ],
)
def test_a_machine_file_with_a_wrong_back_end_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"machine\.toml: backend"):
        read_machine_file(file)


def test_a_machine_file_may_have_one_back_end_as_a_table(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text('[backend]\nname = "a"\naddress = "unix:/a"\n')
    assert read_machine_file(file).backends == (BackendAddress("a", "unix:/a"),)
