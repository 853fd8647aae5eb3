# SPDX-License-Identifier: GPL-2.0-or-later
"""Records a real run in a terminal and draws it as an animated SVG: `./dev cast`.

A shell runs on a pseudo-terminal. The script types into it as a person would, and keeps the output with its times. pyte
interprets the output; each change of the screen becomes a frame. The drawing needs no scripts and no fonts from elsewhere, and
has its own dark background, so it looks the same on a light and on a dark page. Readers who prefer less motion get the last
frame.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import pyte

COLUMNS, ROWS = 100, 26
PROMPT = "$ "
GUEST_PROMPT = "guest# "
WAIT_SECONDS = 120.0
"""How long the run may take to show what the script waits for."""
KEY_SECONDS = 0.045
"""Between two keys that the script types."""
PAUSE_SECONDS = 1.5
"""How long a finished screen stands before the script types on."""

FRAME_SECONDS = 0.1
"""Changes that follow each other faster share a frame."""
END_SECONDS = 5.0
"""How long the last frame stands before the animation starts again."""
MAX_BYTES = 300 << 10
"""What a page can ask of its readers."""

CELL_WIDTH, CELL_HEIGHT, MARGIN, TITLE_HEIGHT = 8.4, 18, 14, 30
FOREGROUND, BACKGROUND, BAR, BORDER = "#d4dae3", "#171b22", "#232936", "#3b4252"
COLOURS = {
    "black": "#4b5563", "red": "#f07178", "green": "#a6d189", "brown": "#e5c890", "blue": "#8caaee", "magenta": "#ca9ee6",
    "cyan": "#81c8be", "white": "#d4dae3", "brightblack": "#7f8794", "brightred": "#ff8f95", "brightgreen": "#b9e5a0",
    "brightbrown": "#f2d9a5", "brightblue": "#a3bcf5", "brightmagenta": "#d9b3f0", "brightcyan": "#99dbd2",
    "brightwhite": "#ffffff",
}  # fmt: skip
"""pyte's names of the sixteen colours, legible on BACKGROUND."""


class CastError(Exception):
    """The run did not do what the script waits for; the message has the screen."""


@dataclass(frozen=True)
class Step:
    """A line that the script types once the screen shows a prompt."""

    prompt: str
    line: str


BOOT = (
    Step(PROMPT, "splitvisor run --kernel debian --initrd debian --append console=hvc0"),
    Step(GUEST_PROMPT, "uname -a"),
    Step(GUEST_PROMPT, "grep -E 'cpu|platform|machine' /proc/cpuinfo"),
    Step(GUEST_PROMPT, "poweroff"),
)
"""The run that the README shows."""


@dataclass(frozen=True)
class Run:
    """Characters of one style, from a column on."""

    column: int
    text: str
    colour: str
    background: str
    bold: bool


Line = tuple[Run, ...]


@dataclass(frozen=True)
class Frame:
    """What the screen shows from a moment on, in seconds since the start."""

    time: float
    lines: tuple[Line, ...]


class Terminal:
    """A shell on a pseudo-terminal, with the screen as it is and all frames so far."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.frames: list[Frame] = []
        self._stream = pyte.ByteStream(self.screen)
        self._process, self._descriptor = pty.fork()
        if self._process == 0:
            os.execvpe(arguments[0], list(arguments), dict(environment))
        ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._start = time.monotonic()

    def wait_for_prompt(self, prompt: str) -> None:
        """Read until the cursor stands behind a prompt, at the start of an otherwise empty line. Raises CastError."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.screen.display[self.screen.cursor.y].rstrip() != prompt.rstrip() or self.screen.cursor.x != len(prompt):
            if time.monotonic() > deadline:
                shown = "\n".join(line.rstrip() for line in self.screen.display).rstrip()
                raise CastError(f"no prompt {prompt!r} within {WAIT_SECONDS:.0f} s; the screen shows:\n{shown}")
            self.read_for(FRAME_SECONDS)

    def type(self, line: str) -> None:
        """Type a line, and Enter."""
        for key in f"{line}\r":
            os.write(self._descriptor, key.encode())
            self.read_for(KEY_SECONDS)

    def read_for(self, seconds: float) -> None:
        """Show what comes within a time. Raises CastError when the shell has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._descriptor], [], [], left)[0]:
                break
            try:
                output = os.read(self._descriptor, 1 << 16)
            except OSError:
                raise CastError("the shell has ended") from None
            self._stream.feed(output)
            self._keep_frame()

    def close(self) -> None:
        """End the shell and what it runs."""
        os.close(self._descriptor)  # The kernel sends SIGHUP to the terminal's processes.
        deadline = time.monotonic() + PAUSE_SECONDS
        while os.waitpid(self._process, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._process, signal.SIGKILL)
            time.sleep(FRAME_SECONDS)

    def _keep_frame(self) -> None:
        now = time.monotonic() - self._start
        lines = tuple(_line(self.screen, row) for row in range(ROWS))
        if self.frames and now - self.frames[-1].time < FRAME_SECONDS:
            self.frames[-1] = Frame(self.frames[-1].time, lines)
        elif not self.frames or self.frames[-1].lines != lines:
            self.frames.append(Frame(now, lines))


def _line(screen: pyte.Screen, row: int) -> Line:
    """Return a row of the screen as runs of one style; blanks without a background are left out at its end."""
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    styled = [
        (cell.data, *_colours(cell.fg, cell.bg, cell.reverse != ((row, column) == (screen.cursor.y, screen.cursor.x))), cell.bold)
        for column, cell in enumerate(cells)
    ]
    runs: list[Run] = []
    column = 0
    for (colour, background, bold), group in groupby(styled, key=lambda cell: cell[1:]):
        text = "".join(cell[0] for cell in group)
        if text.strip() or background:
            kept = text if background else text.rstrip()
            skipped = 0 if background else len(kept) - len(kept.lstrip())
            runs.append(Run(column + skipped, kept[skipped:], colour, background, bold))
        column += len(text)
    return tuple(runs)


def _colours(foreground: str, background: str, reverse: bool) -> tuple[str, str]:
    """Return the colours of a cell as the drawing has them; no background is an empty text."""
    front = FOREGROUND if foreground == "default" else COLOURS.get(foreground, f"#{foreground}")
    back = "" if background == "default" else COLOURS.get(background, f"#{background}")
    return (back or BACKGROUND, front) if reverse else (front, back)


def record(steps: Sequence[Step], environment: Mapping[str, str]) -> list[Frame]:
    """Run the steps in a shell and return the frames. Raises CastError."""
    terminal = Terminal(("bash", "--norc", "--noprofile", "--noediting"), {**environment, "PS1": PROMPT, "TERM": "xterm"})
    try:
        for step in steps:
            terminal.wait_for_prompt(step.prompt)
            terminal.read_for(PAUSE_SECONDS if terminal.frames[1:] else 0.5)
            terminal.type(step.line)
        terminal.wait_for_prompt(PROMPT)
        return list(terminal.frames)
    finally:
        terminal.close()


def draw(frames: Sequence[Frame], title: str) -> str:
    """Return the frames as one SVG, which shows each for its time and starts again at the end.

    A line is drawn once, however often it is seen: while the guest's log scrolls, the lines only change their places.
    """
    width, height = round(COLUMNS * CELL_WIDTH + 2 * MARGIN), ROWS * CELL_HEIGHT + 2 * MARGIN + TITLE_HEIGHT
    length = frames[-1].time + END_SECONDS
    names: dict[Line, str] = {}
    for frame in frames:
        for line in frame.lines:
            if line and line not in names:
                names[line] = f"l{len(names):x}"
    film_height = ROWS * CELL_HEIGHT
    times = (f"{100 * frame.time / length:.3f}%" for frame in frames)
    steps = "".join(f"{at}{{transform:translateY({-index * film_height}px)}}" for index, at in enumerate(times))
    last = -(len(frames) - 1) * film_height
    label = escape(title, {'"': "&quot;"})
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"',
        f' role="img" aria-label="{label}">',
        "<style>",
        f"text{{font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:{FOREGROUND};white-space:pre}}",
        f".b{{font-weight:bold}}.film{{animation:play {length:.2f}s step-end infinite}}",
        f"@keyframes play{{{steps}100%{{transform:translateY({last}px)}}}}",
        f"@media(prefers-reduced-motion:reduce){{.film{{animation:none;transform:translateY({last}px)}}}}",
        "</style>",
        "<defs>",
        *(f'<g id="{name}">{_drawn(line)}</g>' for line, name in names.items()),
        "</defs>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="{BACKGROUND}" stroke="{BORDER}"/>',
        f'<path d="M1 {TITLE_HEIGHT}V9a8 8 0 0 1 8-8H{width - 9}a8 8 0 0 1 8 8V{TITLE_HEIGHT}Z" fill="{BAR}"/>',
        f'<text x="{width / 2:g}" y="20" text-anchor="middle">{escape(title)}</text>',
        f'<svg x="{MARGIN}" y="{MARGIN + TITLE_HEIGHT}" width="{width - 2 * MARGIN}" height="{film_height}"><g class="film">',
        *_film(frames, names, film_height),
        "</g></svg>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _film(frames: Sequence[Frame], names: Mapping[Line, str], film_height: int) -> Iterator[str]:
    """Draw all frames, one below the other; the animation moves this strip."""
    for index, frame in enumerate(frames):
        rows = (
            f'<use href="#{names[line]}" y="{index * film_height + row * CELL_HEIGHT}"/>'
            for row, line in enumerate(frame.lines)
            if line
        )
        yield "".join(rows)


def _drawn(line: Line) -> str:
    """Draw a line at the origin. Each run has its width stated, so that any monospace font keeps the columns."""
    parts = []
    for run in line:
        x, width = f"{run.column * CELL_WIDTH:g}", f"{len(run.text) * CELL_WIDTH:g}"
        if run.background:
            parts.append(f'<rect x="{x}" width="{width}" height="{CELL_HEIGHT}" fill="{run.background}"/>')
        if run.text.strip():
            style = (' class="b"' if run.bold else "") + (f' style="fill:{run.colour}"' if run.colour != FOREGROUND else "")
            parts.append(f'<text x="{x}" y="14" textLength="{width}"{style}>{escape(run.text)}</text>')
    return "".join(parts)


def main(arguments: Sequence[str]) -> int:
    """Record the boot and write the drawing; return the exit status: 0, 1 when the run failed."""
    target = Path(arguments[0])
    with tempfile.TemporaryDirectory(prefix="sv-cast-") as home:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": home,
            "COLUMNS": str(COLUMNS),
            "LINES": str(ROWS),
        }
        try:
            frames = record(BOOT, environment)
        except CastError as error:
            print(f"dev cast: {error}", file=sys.stderr)
            return 1
    drawing = draw(frames, "Debian 12 (ppc64le) on Splitvisor")
    if len(drawing.encode()) > MAX_BYTES:
        print(f"dev cast: the drawing has {len(drawing) >> 10} KiB, more than {MAX_BYTES >> 10}", file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(drawing)
    print(f"{target}: {len(frames)} frames, {frames[-1].time:.1f} s, {len(drawing) >> 10} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
