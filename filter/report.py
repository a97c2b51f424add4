"""What `consentry evaluate` prints, and the same as one page of HTML with plots, and as one JSON document.

Nothing but the measured messages' evidence is quoted, a few words each. The page loads nothing from anywhere.
`page` needs matplotlib (the extra `train`) and raises ImportError without it.
"""

import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .display import visible
from .evaluation import (
    SPECIFICITY,
    Figures,
    Judged,
    Quality,
    Share,
    Spans,
    auc,
    figures_of,
    groups_of,
    recall_at,
    share_of,
)
from .labels import Label

Rows = Sequence[Sequence[str]]
Scores = Mapping[str, Sequence[float]]  # of references, by name: a probability for each message
_DASH: Final = "–"  # noqa: RUF001 -- a dash, where there is no figure
_QUOTED: Final = 3
_HALF: Final = 0.5
# What the figures are split by.
_KEYS: Final = {
    "source": lambda example: example.source,
    "language": lambda example: example.lang,
    "channel": lambda example: str(example.message.channel),
}
_HEADS: Final = (
    "n",
    "promotional",
    "recall",
    "specificity",
    "AUC",
    f"recall at {SPECIFICITY:g}",
    "mixed found",
    "label",
)


def printed(judged: Sequence[Judged], worst: Sequence[Judged], others: Scores) -> RenderableType:
    """The report for a terminal; `others` are references, by name."""
    parts: list[RenderableType] = []
    for title, (heads, rows) in _tables(judged, others).items():
        table = Table(*heads, box=None, header_style="dim", pad_edge=False)
        for row in rows:
            table.add_row(*(visible(cell) for cell in row))
        parts += [Text(title, "bold"), Padding(table, (0, 0, 1, 2))]
    if worst:
        parts.append(Text("Worst mistakes", "bold"))
        parts += [Padding(visible(line), (0, 0, 0, 2)) for one in worst for line in _mistake(one)]
    return Group(*parts)


def page(judged: Sequence[Judged], worst: Sequence[Judged], others: Scores, title: str) -> str:
    """The report as HTML."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f'<p class="plot">{plot}</p>' for plot in _plots(judged)]
    for name, (heads, rows) in _tables(judged, others).items():
        head = "".join(f"<th>{html.escape(one)}</th>" for one in heads)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{html.escape(name)}</h2><table><tr>{head}</tr>{body}</table>")
    lines = "\n".join(line for one in worst for line in _mistake(one))
    parts.append(f"<h2>Worst mistakes</h2><pre>{html.escape(lines)}</pre>")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>{_STYLE}'
        + "".join(parts)
    )


_STYLE: Final = (
    "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #ddd}"
    "pre{white-space:pre-wrap}.plot{display:inline-block;margin:0}svg{max-width:100%;height:auto}</style>"
)


def _tables(judged: Sequence[Judged], others: Scores) -> dict[str, tuple[Sequence[str], Rows]]:
    whole = figures_of(judged)
    compared = [("consentry", _row(whole)), *((name, _scored(judged, scores)) for name, scores in others.items())]
    tables: dict[str, tuple[Sequence[str], Rows]] = {
        "Promotional or not": (("", *_HEADS), [(name, *row) for name, row in compared]),
        "By label": (
            ("", "n", "precision", "recall", "F1"),
            [(label, *_quality(whole.labels[label])) for label in Label if whole.labels[label].messages],
        ),
        "Labelled, and judged": (("", *Label), _confusion(whole)),
        f"Calibration (Brier score {whole.brier:.3f})": (
            ("score from", "n", "mean score", "promotional"),
            [(f"{b.low:.1f}", str(b.messages), f"{b.score:.2f}", f"{b.promotional:.2f}") for b in whole.reliability],
        ),
    }
    if whole.spans:
        tables["Promotional passages of mixed messages"] = (
            ("one found", "words that lie in one"),
            [(_share(whole.spans.found), f"{whole.spans.exact:.3f}")],
        )
    for name, key in _KEYS.items():
        groups = groups_of(judged, key)
        if len(groups) > 1:
            rows = [(group, *_row(figures_of(those))) for group, those in groups.items()]
            tables[f"By {name}"] = (("", *_HEADS), rows)
    return tables


def _row(figures: Figures) -> tuple[str, ...]:
    return (
        str(figures.count),
        str(figures.promotional.messages),
        _share(figures.promotional.recall),
        _share(figures.specificity),
        _number(figures.auc),
        _number(figures.recall_at),
        _share(figures.mixed_found),
        _share(figures.accuracy),
    )


def _scored(judged: Sequence[Judged], scores: Sequence[float]) -> tuple[str, ...]:
    """The row of a reference, which knows promotional and not, from one half on."""
    wanted = [one.promotional for one in judged]
    found = [score >= _HALF for score in scores]
    pairs = list(zip(judged, found, strict=True))
    return (
        str(len(judged)),
        str(sum(wanted)),
        _share(share_of([got for one, got in pairs if one.promotional])),
        _share(share_of([not got for one, got in pairs if not one.promotional])),
        _number(auc(wanted, scores)),
        _number(recall_at(wanted, scores)),
        _share(share_of([got for one, got in pairs if one.example.label is Label.MIXED])),
        _DASH,
    )


def _quality(quality: Quality) -> tuple[str, ...]:
    return str(quality.messages), _share(quality.precision), _share(quality.recall), _share(quality.f1)


def _confusion(figures: Figures) -> Rows:
    return [(wanted, *(str(figures.confusion.get((wanted, got), 0) or "") for got in Label)) for wanted in Label]


def _share(share: Share | None) -> str:
    return f"{share.value:.3f} ({share.low:.2f}-{share.high:.2f})" if share else _DASH


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3f}"


def _mistake(one: Judged) -> Iterable[str]:
    example, result = one.example, one.result
    doubtful = ", borderline" if example.borderline else ""
    yield f"{example.id}: {example.label}{doubtful}, judged {result.label} ({result.score:.2f})"
    strongest = sorted(result.evidence, key=lambda e: -abs(e.weight))[:_QUOTED]
    for evidence in strongest:
        yield f'    {evidence.rule} {evidence.weight:+.2f} "{evidence.text}"'


def _plots(judged: Sequence[Judged]) -> Iterable[str]:
    from matplotlib.figure import Figure  # noqa: PLC0415 -- large, and for this page only

    whole = figures_of(judged)
    reliability = Figure(figsize=(4.5, 3.5), layout="constrained")
    axes = reliability.subplots()
    axes.plot([0, 1], [0, 1], color="#bbb")
    axes.plot([b.score for b in whole.reliability], [b.promotional for b in whole.reliability], "o-")
    axes.set(xlabel="score", ylabel="share promotional", title="Calibration")
    yield _svg(reliability)
    scores = Figure(figsize=(4.5, 3.5), layout="constrained")
    axes = scores.subplots()
    for name, wanted in (("promotional", True), ("other", False)):
        axes.hist(
            [j.result.score for j in judged if j.promotional is wanted], bins=20, range=(0, 1), alpha=0.6, label=name
        )
    axes.set(xlabel="score", ylabel="messages", title="Scores")
    axes.legend()
    yield _svg(scores)
    yield _svg(_curve(judged))


def _curve(judged: Sequence[Judged]) -> Any:
    """Recall against false alarms, at every threshold."""
    from matplotlib.figure import Figure  # noqa: PLC0415 -- as above

    figure = Figure(figsize=(4.5, 3.5), layout="constrained")
    axes = figure.subplots()
    own = sorted((j.result.score for j in judged if j.promotional), reverse=True)
    rest = sorted((j.result.score for j in judged if not j.promotional), reverse=True)
    points = [
        (sum(s >= t for s in rest) / max(len(rest), 1), sum(s >= t for s in own) / max(len(own), 1))
        for t in sorted({*own, *rest}, reverse=True)
    ]
    axes.plot([0, *(x for x, _ in points), 1], [0, *(y for _, y in points), 1])
    axes.set(xlabel="other mail taken for promotion", ylabel="promotion found", title="At every threshold")
    return figure


def _svg(figure: Any) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def document(judged: Sequence[Judged], version: str) -> dict[str, Any]:
    """The figures as values of JSON, of all and by source, language and channel; `version` is that of the rules."""
    parts = {
        f"{name}s": {group: _as_json(figures_of(those)) for group, those in groups_of(judged, key).items()}
        for name, key in _KEYS.items()
    }
    return {"rules": version, "all": _as_json(figures_of(judged)), **parts}


def _as_json(figures: Figures) -> dict[str, Any]:
    return {
        "messages": figures.count,
        "promotional": _quality_as_json(figures.promotional),
        "specificity": _share_as_json(figures.specificity),
        "mixed_found": _share_as_json(figures.mixed_found),
        "accuracy": _share_as_json(figures.accuracy),
        "auc": figures.auc,
        "recall_at_specificity": figures.recall_at,
        "brier": figures.brier,
        "labels": {
            label.value: _quality_as_json(quality) for label, quality in figures.labels.items() if quality.messages
        },
        "confusion": [[wanted, got, count] for (wanted, got), count in sorted(figures.confusion.items())],
        "reliability": [one._asdict() for one in figures.reliability],
        "spans": _spans_as_json(figures.spans),
    }


def _quality_as_json(quality: Quality) -> dict[str, Any]:
    return {
        "messages": quality.messages,
        "precision": _share_as_json(quality.precision),
        "recall": _share_as_json(quality.recall),
        "f1": _share_as_json(quality.f1),
    }


def _share_as_json(share: Share | None) -> dict[str, float] | None:
    return share._asdict() if share else None


def _spans_as_json(spans: Spans | None) -> dict[str, Any] | None:
    return {"found": _share_as_json(spans.found), "exact": spans.exact} if spans else None
