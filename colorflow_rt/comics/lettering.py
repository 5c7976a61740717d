"""Hand lettering drawn with strokes, speech bubbles and sound words (no font file: the same on every machine)."""

import numpy as np
from PIL import ImageDraw

from colorflow_rt.comics.shapes import Points, ellipse, polygon, star
from colorflow_rt.comics.sheet import CLEAR, INKED, LIT, Pen, Sheet

# Strokes as digit pairs x y on a grid of 4 by 6, y down.
_GLYPHS = {
    "A": "062046 1434",
    "B": "00063635231303 000030311303",
    "C": "41301001051636 3645",
    "D": "0006264541200",
    "E": "40000646 0333",
    "F": "400006 0333",
    "G": "4130100105163645432 3",
    "H": "0006 4046 0343",
    "I": "2026",
    "J": "3035261605",
    "K": "0006 400346",
    "L": "000646",
    "M": "0600234046",
    "N": "06004640",
    "O": "1030414536160501 10",
    "P": "06003041321303",
    "Q": "10304145361605011 0 2446",
    "R": "06003041321303 1346",
    "S": "4130100112324345361605",
    "T": "0040 2026",
    "U": "0005163645 40",
    "V": "002640",
    "W": "0016233640",
    "X": "0046 4006",
    "Y": "002340 2326",
    "Z": "00400646",
    "!": "2024 2526",
    "?": "0110304142232 4 2526",
    ".": "2526",
    ",": "2526",
    "'": "2021",
    "-": "1333",
}
_GLYPHS |= {
    "D": "000626454120 2000",
    "G": "41301001051636454323",
    "O": "103041453616050110",
    "U": "000516364540",
    "Q": "103041453616050110 2446",
    "?": "011030414223 2324 2526",
    "C": "413010010516364536"[:16],
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


def _strokes(glyph: str) -> list[Points]:
    return [
        np.array([[int(run[i]), int(run[i + 1])] for i in range(0, len(run) - 1, 2)], np.float64)
        for run in glyph.split()
    ]


_STROKES = {letter: _strokes(glyph) for letter, glyph in _GLYPHS.items()}
ADVANCE, LEADING = 5.6, 9.0  # grid units from letter to letter and from line to line


def write(
    sheet: Sheet, text: str, x: float, y: float, height: float, width: float = 1.0, *, white: bool = False
) -> None:
    """One line of capitals centred on (x, y), `height` pixels tall, in ink or in white."""
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
    sheet: Sheet, text: str, x: float, y: float, width: float, speaker: tuple[float, float], *, shout: bool
) -> None:
    """A speech bubble of about `width` pixels around (x, y), its tail towards the speaker, kept on the sheet."""
    lines = wrap(text, 9 if len(text) > 9 else 12)
    longest = max(len(line) for line in lines)
    unit = width * 0.72 / (max(longest, 6) * ADVANCE)
    rx, ry = width / 2, unit * (len(lines) * LEADING * 0.5 + 6.0)
    x = float(np.clip(x, rx * 1.04, max(sheet.width - rx * 1.04, rx * 1.04)))
    y = max(y, ry * 1.08)
    pen = Pen(sheet, x, y, 1.0)
    outline = _burst(rx, ry) if shout else ellipse(0, 0, rx, ry, 36)
    tail = _tail(rx, ry, speaker[0] - x, speaker[1] - y)
    pen.fill(tail, 0)
    pen.fill(outline, 0)
    pen.fill(tail * 0.97 - 0.05 * (tail[1] - tail[0]) * 0, 0, outline=0)
    for i, line in enumerate(lines):
        write(
            sheet,
            line,
            x,
            y + (i - (len(lines) - 1) / 2) * LEADING * unit,
            6 * unit,
            max(0.6, unit * 0.85 / sheet.line),
        )


def _burst(rx: float, ry: float) -> Points:
    return star(0, 0, 1.15, 0.95, 14) * (rx, ry)


def _tail(rx: float, ry: float, dx: float, dy: float) -> Points:
    """A wedge from inside the bubble part of the way to (dx, dy)."""
    distance = max(float(np.hypot(dx, dy)), 1e-6)
    ux, uy = dx / distance, dy / distance
    edge = 1 / max(float(np.hypot(ux / rx, uy / ry)), 1e-9)
    reach = edge + min(max(distance - edge, 0) * 0.55, ry * 0.8)
    half, base = min(rx, ry) * 0.22, edge * 0.75
    return polygon(
        (ux * base - uy * half, uy * base + ux * half),
        (ux * reach, uy * reach),
        (ux * base + uy * half, uy * base - ux * half),
    )


def sound(sheet: Sheet, text: str, x: float, y: float, height: float) -> None:
    """A sound word: thick letters with a white heart."""
    thick = height / 5 / sheet.line
    write(sheet, text, x, y, height, thick)
    write(sheet, text, x, y, height, thick * 0.45, white=True)


def speed_lines(sheet: Sheet, rng: np.random.Generator, x: float, y: float) -> None:
    """Wedges of ink from the panel's edges towards (x, y)."""
    reach = float(np.hypot(sheet.width, sheet.height))
    draw = ImageDraw.Draw(sheet.picture)
    for turn in (np.arange(40) + rng.random(40)) * (2 * np.pi / 40):
        inner = float(rng.uniform(0.34, 0.5)) * min(sheet.width, sheet.height) * 1.25
        half = float(rng.uniform(0.004, 0.012))
        tip = (x + inner * np.cos(turn), y + inner * np.sin(turn))
        ends = [(x + reach * np.cos(turn + s * half), y + reach * np.sin(turn + s * half)) for s in (-1, 1)]
        draw.polygon([float(v) for p in (tip, *ends) for v in p], (0, INKED, LIT))
