# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls, answers and events as people read them. What a guest wrote is escaped."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import hcall_name
from splitvisor.papr.vio import CRQ_ENTRY_BYTES
from splitvisor.recording.conversation import Introduction, Item, Seed, Step
from splitvisor.rpc import trap_pb2 as pb

SHOWN_BYTES = 16
"""Of each block of memory."""
SHOWN_KEYS = 8
SHOWN_TEXT = 64
SHOWN_RANGES = 4
"""Of one DMA, and of the entries that are put into a queue together."""

_TERMINAL_BLOCK = struct.Struct(">QQ")


def call_text(route: pb.Route, trap: pb.Trap) -> str:
    """Describe a call: `vcpu 0 H_VIO_SIGNAL(0x71000000, 0x1)`."""
    decode = _DECODERS.get(route.name)
    arguments = decode(trap) if decode is not None else None
    if arguments is None:
        arguments = ", ".join(f"{argument:#x}" for argument in trap.arguments)
    return f"vcpu {trap.vcpu} {_escaped(route.name)}({arguments})"


def reply_text(route: pb.Route, reply: pb.Reply) -> str:
    """Describe an answer: `H_SUCCESS r4=0x5; writes 0x1000+4 00000001; interrupt 0x1000`."""
    if route.kind == pb.CALL_KIND_RTAS:
        parts = ["no such call"] if reply.unknown_call else [" ".join(_returns(reply.returns))]
    else:
        registers = [f"r{number}={value:#x}" for number, value in enumerate(reply.outputs, 4)]
        parts = [" ".join((_code(H, reply.result), *registers))]
    if route.name == "H_GET_TERM_CHAR":
        parts.append(_quoted(typed_bytes(reply)))
    parts += [f"writes {block_text(block)}" for block in reply.writes]
    parts += [f"wrote {block.address:#x}+{block.length}" for block in reply.dirty]
    parts += [effect_text(effect) for effect in reply.effects]
    return "; ".join(part for part in parts if part)


def effect_text(effect: pb.Effect) -> str:
    """Describe what a reply does beside registers and memory."""
    match effect.WhichOneof("effect"):
        case "interrupt":
            return f"interrupt {effect.interrupt.source:#x}"
        case "action":
            return _action_text(effect.action)
        case "invoke":
            return f"calls {_invoke_text(effect.invoke)}"
        case "mirror_write":
            write = effect.mirror_write
            return f"{_escaped(write.name)} at {write.offset:#x} {_bytes_text(write.data)}"
    return ""


def asked_text(message: pb.AttachResponse) -> str:
    """Describe what a back end asks for, or says without being asked."""
    kind = message.WhichOneof("message")
    describe = _MESSAGES.get(kind or "")
    return describe(message) if describe is not None else kind or "nothing"


def block_text(block: pb.MemoryBlock) -> str:
    """Describe a block of memory."""
    return f"{block.address:#x}+{len(block.data)} {_bytes_text(block.data)}"


def item_lines(item: Item, offer: pb.Offer) -> Sequence[str]:
    """Describe an item of a conversation whose back end made this offer, a call a line."""
    match item:
        case Introduction():
            names = ", ".join(_escaped(route.name) for route in item.offer.routes)
            machine = f"VM {_escaped(item.hello.vm)}, {item.hello.vcpus} vCPUs, {item.hello.ram_bytes >> 20} MiB"
            return [f"attached: {machine}; owns {names}"]
        case Step():
            return _step_lines(item, offer)
        case Seed():
            return [f"seed tree, revision {item.tree.response.revision}, {len(item.tree.response.blob)} bytes"]
    return [asked_text(item.message)]


def _step_lines(step: Step, offer: pb.Offer) -> Sequence[str]:
    asked = "".join(f"; {asked_text(message)}" for message, _ in step.asked)
    if step.request.HasField("reset"):
        return [f"reset {step.request.reset.count}{asked}"]
    if step.request.HasField("trap"):
        route = offer.routes[step.request.trap.route]
        return [f"{call_text(route, step.request.trap)} -> {reply_text(route, step.response.reply)}{asked}"]
    return [f"{call_text(offer.routes[trap.route], trap)} posted{asked}" for trap in step.traps]


def terminal_bytes(trap: pb.Trap) -> bytes:
    """Return what an H_PUT_TERM_CHAR writes."""
    if len(trap.arguments) != 4:
        return b""
    _, length, high, low = trap.arguments
    return _TERMINAL_BLOCK.pack(high, low)[:length]


def typed_bytes(reply: pb.Reply) -> bytes:
    """Return what an H_GET_TERM_CHAR read."""
    if reply.result or len(reply.outputs) != 3:
        return b""
    length, high, low = reply.outputs
    return _TERMINAL_BLOCK.pack(high, low)[:length]


def _put_term_char(trap: pb.Trap) -> str | None:
    return f"{trap.arguments[0]:#x}, {_quoted(terminal_bytes(trap))}" if len(trap.arguments) == 4 else None


def _of_client(trap: pb.Trap) -> str | None:
    """The client service and its strings: operands after the argument array."""
    texts = [block.data.rstrip(b"\0") for block in trap.operands[1:]]
    return f"{trap.arguments[0]:#x}: {' '.join(map(_quoted, texts))}" if trap.arguments and texts else None


_DECODERS: dict[str, Callable[[pb.Trap], str | None]] = {"H_PUT_TERM_CHAR": _put_term_char, "H_OF_CLIENT": _of_client}


def _inventory_text(inventory: pb.Inventory) -> str:
    kinds = ", ".join(f"{device.kind}@{device.unit_address:x}" for device in inventory.devices)
    keys = [each for keys in inventory.keys for each in keys.keys]
    return f"has now {_escaped(kinds) or 'no devices'}{f'; owns {keys_text(keys)}' if keys else ''}"


def keys_text(ranges: Iterable[pb.KeyRange]) -> str:
    """Describe keys of shared calls, each once."""
    keys = sorted({(each.first, each.last) for each in ranges})
    shown = ", ".join(f"{first:#x}" if first == last else f"{first:#x} to {last:#x}" for first, last in keys[:SHOWN_KEYS])
    return f"keys {shown}{', ...' if len(keys) > SHOWN_KEYS else ''}" if keys else "no keys"


_MESSAGES: dict[str, Callable[[pb.AttachResponse], str]] = {
    "memory_read": lambda it: f"reads {_read_text(it.memory_read)}",
    "memory_write": lambda it: f"writes {_write_text(it.memory_write)}",
    "crq_entries": lambda it: _entries_text(it.crq_entries),
    "invoke": lambda it: f"calls {_invoke_text(it.invoke)}",
    "interrupt": lambda it: f"interrupt {it.interrupt.source:#x}",
    "action": lambda it: _action_text(it.action),
    "dirty": lambda it: f"wrote {it.dirty.address:#x}+{it.dirty.length}",
    "inventory": lambda it: _inventory_text(it.inventory),
    "reset_done": lambda _: "reset",
    "acknowledge": lambda _: "acknowledged",
}


def _read_text(read: pb.MemoryRead) -> str:
    ranges = (read.range, *read.more)
    return ", ".join(f"{each.address:#x}+{each.length}" for each in ranges[:SHOWN_RANGES]) + _dma_text(read.liobn, len(ranges))


def _write_text(write: pb.MemoryWrite) -> str:
    blocks = (write.block, *write.more)
    return ", ".join(map(block_text, blocks[:SHOWN_RANGES])) + _dma_text(write.liobn, len(blocks))


def _dma_text(liobn: int, ranges: int) -> str:
    more = f" and {ranges - SHOWN_RANGES} more" if ranges > SHOWN_RANGES else ""
    return f"{more} by DMA of {liobn:#x}" if liobn else ""


def _entries_text(put: pb.CrqEntries) -> str:
    entries = [put.entries[start : start + CRQ_ENTRY_BYTES].hex() for start in range(0, len(put.entries), CRQ_ENTRY_BYTES)]
    more = f" and {len(entries) - SHOWN_RANGES} more" if len(entries) > SHOWN_RANGES else ""
    return f"puts into the queue of {put.unit_address:#x} from {put.position} on: {', '.join(entries[:SHOWN_RANGES])}{more}"


def _invoke_text(invoke: pb.Invoke) -> str:
    trap = pb.Trap(arguments=invoke.arguments)
    return call_text(pb.Route(name=hcall_name(invoke.token)), trap).partition(f"vcpu {trap.vcpu} ")[2]


def _action_text(action: pb.MachineAction) -> str:
    if action.kind in pb.MachineActionKind.values():
        kind = pb.MachineActionKind.Name(action.kind).removeprefix("MACHINE_ACTION_KIND_").lower().replace("_", " ")
    else:
        kind = f"action {action.kind}"
    return f"{kind} ({_escaped(action.reason[:SHOWN_TEXT])})"


def _returns(words: Sequence[int]) -> Sequence[str]:
    if not words:
        return ["no return words"]
    status = words[0] - (1 << 32) if words[0] >> 31 else words[0]
    return [_code(RtasStatus, status), *(f"{word:#x}" for word in words[1:])]


def _code(codes: type[H] | type[RtasStatus], value: int) -> str:
    prefix = "H_" if codes is H else ""
    try:
        return f"{prefix}{codes(value).name}"
    except ValueError:
        return str(value)


def _bytes_text(data: bytes) -> str:
    return data[:SHOWN_BYTES].hex() + ("..." if len(data) > SHOWN_BYTES else "")


def _quoted(data: bytes) -> str:
    return f'"{_escaped(data[:SHOWN_TEXT].decode("latin-1"))}"'


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")
