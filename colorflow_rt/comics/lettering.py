"""Hand lettering drawn with strokes, speech bubbles, sound words and speed lines.

No font file is read, so pages are the same on every machine.
"""

import numpy as np

from colorflow_rt.comics.shapes import Points, ellipse, polygon, star
from colorflow_rt.comics.sheet import CLEAR, INKED, LIT, Pen, Sheet

# Strokes as digit pairs x y on a grid of 4 by 6, y down.
_GLYPHS = {
    "A": "062046 1434",
    "B": "000636453413 0030413203",
    "C": "4130100105163645",
    "D": "00062645412000",
    "E": "40000646 0333",
    "F": "400006 0333",
    "G": "41301001051636454323",
    "H": "0006 4046 0343",
    "I": "2026",
    "J": "3035261605",
    "K": "0006 400346",
    "L": "000646",
    "M": "0600234046",
    "N": "06004640",
    "O": "103041453616050110",
    "P": "06003041321303",
    "Q": "103041453616050110 2446",
    "R": "06003041321303 1346",
    "S": "4130100112324345361605",
    "T": "0040 2026",
    "U": "000516364540",
    "V": "002640",
    "W": "0016233640",
    "X": "0046 4006",
    "Y": "002340 2326",
    "Z": "00400646",
    "!": "2024 2526",
    "?": "011030414223 2324 2526",
    ".": "2526",
    "'": "2021",
}
SPEECH = (
    "HELLO!",
    "WAIT FOR ME!",
    "LOOK OVER THERE",
    "WHAT IS THAT?",
    "I KNEW IT",
    "NO WAY!",
    "LET'S GO",
    "ARE YOU SURE?",
    "IT IS ONLY A CAT",
    "WE ARE LATE!",
    "HMM...",
    "THANK YOU",
    "NEVER!",
    "TELL ME MORE",
    "OVER HERE",
    "I FOUND IT",
    "WHERE WERE YOU?",
    "JUST A MOMENT",
    "THAT WAS CLOSE",
    "SO QUIET TODAY",
    "CAN YOU HEAR IT?",
    "ALL RIGHT",
)
SOUNDS = ("BAM!", "WHOOSH", "TAP TAP", "ZOOM", "CRACK", "DING!")
ADVANCE, LEADING = 5.6, 9.0  # grid units from letter to letter and from line to line


def _strokes(glyph: str) -> list[Points]:
    return [np.array([int(digit) for digit in run], np.float64).reshape(-1, 2) for run in glyph.split()]


_STROKES = {letter: _strokes(glyph) for letter, glyph in _GLYPHS.items()}


def write(
    sheet: Sheet, text: str, x: float, y: float, height: float, width: float = 1.0, *, white: bool = False
) -> None:
    """One line of capitals centred on (x, y), `height` pixels tall, strokes `width` outlines wide."""
    unit = height / 6
    left = x - (len(text) * ADVANCE - 1.6) * unit / 2
    value = (0, CLEAR if white else INKED, LIT)
    for i, letter in enumerate(text):
        for points in _STROKES.get(letter, []):
            sheet.stroke(points * unit + (left + i * ADVANCE * unit, y - height / 2), width, value)


def wrap(text: str, letters: int) -> list[str]:
    """Words set into lines of at most about `letters`."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > letters:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def bubble(
    sheet: Sheet, text: str, x: float, y: float, width: float, mouth: tuple[float, float], *, shout: bool
) -> None:
    """A speech bubble of about `width` pixels around (x, y), kept on the sheet; its tail points to the mouth."""
    lines = wrap(text, 9)
    unit = width * 0.74 / (max(6, *map(len, lines)) * ADVANCE)
    rx, ry = width / 2, unit * (len(lines) * LEADING * 0.5 + 6.0)
    x = float(np.clip(x, rx * 1.04, max(sheet.width - rx * 1.04, rx * 1.04)))
    y = max(y, ry * 1.08)
    pen = Pen(sheet, x, y, 1.0)
    balloon = star(0, 0, 1.15, 0.95, 14) * (rx, ry) if shout else ellipse(0, 0, rx, ry, 36)
    tail = _tail(rx, ry, mouth[0] - x, mouth[1] - y)
    pen.fill(tail, 0)
    pen.fill(balloon, 0)
    pen.fill(tail, 0, outline=0)  # opens the balloon into its tail
    pen.line(tail[:3])
    for i, line in enumerate(lines):
        middle = y + (i - (len(lines) - 1) / 2) * LEADING * unit
        write(sheet, line, x, middle, 6 * unit, max(0.6, unit * 0.85 / sheet.line))


def _tail(rx: float, ry: float, dx: float, dy: float) -> Points:
    """A wedge from inside the balloon part of the way to (dx, dy): one foot, tip, other foot."""
    distance = max(float(np.hypot(dx, dy)), 1e-6)
    ux, uy = dx / distance, dy / distance
    edge = 1 / max(float(np.hypot(ux / rx, uy / ry)), 1e-9)
    reach = edge + min(max(distance - edge, 0) * 0.55, ry * 0.8)
    half, base = min(rx, ry) * 0.22, edge * 0.93
    feet = (ux * base - uy * half, uy * base + ux * half), (ux * base + uy * half, uy * base - ux * half)
    return polygon(feet[0], (ux * reach, uy * reach), feet[1])


def sound(sheet: Sheet, text: str, x: float, y: float, height: float) -> None:
    """A sound word: thick letters with a white heart."""
    thick = height / 4 / sheet.line
    write(sheet, text, x, y, height, thick)
    write(sheet, text, x, y, height, thick * 0.45, white=True)


def speed_lines(sheet: Sheet, rng: np.random.Generator, x: float, y: float) -> None:
    """Wedges of ink from the panel's edges towards (x, y)."""
    reach = float(np.hypot(sheet.width, sheet.height))
    for turn in (np.arange(40) + rng.random(40)) * (2 * np.pi / 40):
        inner = float(rng.uniform(0.42, 0.62)) * min(sheet.width, sheet.height)
        half = float(rng.uniform(0.004, 0.012))
        turns = turn + np.array([0, -half, half])
        ends = np.stack([np.cos(turns), np.sin(turns)], 1) * [[inner], [reach], [reach]] + (x, y)
        sheet.draw.polygon(ends.ravel().tolist(), (0, INKED, LIT))
