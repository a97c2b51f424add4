#!/usr/bin/env python3
"""Draws the dashboards as pictures, without Grafana: the same queries, asked of a Prometheus, in the same layout.

    python deploy/grafana/render.py --prometheus http://127.0.0.1:9090 --out pictures [--minutes 180] [NAME …]

NAME is a file of dashboards/ without .json; all of them by default. Needs matplotlib. It draws the kinds of panels and
the options that these dashboards use, and is no copy of Grafana: colours and letters differ. ValueError for a kind of
panel that it does not know; an error of Prometheus ends it with its words.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

import matplotlib as mpl

mpl.use("Agg")

import panels
from dashboards import SCRAPE_SECONDS, AskError, Board, Server, Window, answers, boards
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from PIL import Image

WIDTH: Final = 1400  # pixels
ROW: Final = 32  # pixels of one unit of height
DPI: Final = 100
POINTS: Final = 240  # of a graph
HEAD: Final = 1.6  # units of height for the title
COLOURS: Final = 128  # of the palette of a picture: small files
PAPER, EDGE, INK = "#f4f5f5", "#d8dade", "#24292e"


def main(words: Sequence[str]) -> int:
    """Draw; the exit status."""
    known = {board.name: board for board in boards()}
    parser = argparse.ArgumentParser(description="Draw the dashboards as pictures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(known)} (default: all)")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="address of Prometheus")
    parser.add_argument("--out", type=Path, default=Path(), help="directory of the pictures")
    parser.add_argument("--minutes", type=float, default=180, help="how far back the graphs go")
    parser.add_argument("--scrape", type=float, default=SCRAPE_SECONDS, help="seconds between two scrapes")
    given = parser.parse_args(words)
    if strangers := set(given.names) - set(known):
        parser.error(f"no dashboard is called {', '.join(sorted(strangers))}")
    end = time.time()
    span = given.minutes * 60
    window = Window(end - span, end, max(1.0, span / POINTS), given.scrape)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        for name in given.names or known:
            path = draw(known[name], Server(given.prometheus), window, given.out)
            sys.stdout.write(f"{path}\n")
    except (AskError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def draw(board: Board, server: Server, window: Window, directory: Path) -> Path:
    """Draw one dashboard; the file."""
    fill = board.defaults()
    places = [panel.raw["gridPos"] for panel in board.panels]
    height = max(place["y"] + place["h"] for place in places)
    figure = plt.figure(figsize=(WIDTH / DPI, (height + HEAD) * ROW / DPI), dpi=DPI, facecolor=PAPER)
    whole = figure.add_axes((0, 0, 1, 1), xlim=(0, 24), ylim=(height, -HEAD))
    whole.set_axis_off()
    whole.text(0.15, -0.8, str(board.raw["title"]), fontsize=14, weight="bold", color=INK, va="center")
    spoken = f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime(window.end))} UTC, {window.span / 60:.0f} min"
    whole.text(23.85, -0.8, spoken, fontsize=9, color="#57606a", va="center", ha="right")
    for panel, place in zip(board.panels, places, strict=True):
        if panel.kind == "row":
            words = f"▾ {panel.title}"
            whole.text(0.15, place["y"] + 0.55, words, fontsize=10, weight="bold", color=INK, va="center")
            continue
        _frame(whole, panel.title, place)
        drawing = panels.Drawing(figure, whole, panels.Place(*(place[name] for name in "xywh")), height, HEAD)
        panels.draw(drawing, panel, list(answers(server, panel, fill, window)), window)
    path = directory / f"{board.name}.png"
    figure.savefig(path, dpi=DPI, facecolor=PAPER)
    plt.close(figure)
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
    return path


def _frame(whole: Axes, title: str, place: Mapping[str, int]) -> None:
    x, y, w, h = (place[name] for name in "xywh")
    style = "round,pad=0,rounding_size=0.06"
    whole.add_patch(
        FancyBboxPatch(
            (x + 0.06, y + 0.1), w - 0.12, h - 0.2, boxstyle=style, facecolor="white", edgecolor=EDGE, lw=0.8
        )
    )
    whole.text(x + 0.2, y + 0.62, title, fontsize=8.5, weight="bold", color=INK, va="center")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
