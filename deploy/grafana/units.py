"""Numbers as a panel shows them: `shown(0.0042, "s")` is "4.2 ms". ValueError for a unit that is not known."""

from math import isfinite
from typing import Final

_SHORT: Final = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
_SECONDS: Final = ((86400.0, " d"), (3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs"))
_BYTES: Final = ((2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"))
_PARTS: Final = 2  # of a duration
# By unit: sizes with their names, what stands behind a smaller value, what stands behind all.
_SCALES: Final = {
    "short": (_SHORT, "", ""),
    "bytes": (_BYTES, " B", ""),
    "s": (_SECONDS, " s", ""),
    "mps": (_SHORT, "", " msg/s"),
    "cps": (_SHORT, "", " /s"),
    "ops": (_SHORT, "", " ops/s"),
    "recps": (_SHORT, "", " rec/s"),
}


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, three digits of it unless `decimals` says how many come after the point."""
    if unit not in _SCALES and unit not in {"percentunit", "dtdurations"}:
        raise ValueError(f"unit {unit}: known are percentunit, dtdurations, {', '.join(_SCALES)}")
    if not isfinite(value):
        return "none"
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    if unit == "dtdurations":
        return _duration(value)
    scales, plain, after = _SCALES[unit]
    return _scaled(value, scales, plain, decimals) + after


def _scaled(value: float, scales: tuple[tuple[float, str], ...], plain: str, decimals: int | None) -> str:
    for size, name in scales:
        if abs(value) >= size * 0.9999:
            return _digits(value / size, decimals) + name
    return _digits(value, decimals) + plain


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text else text


def _duration(seconds: float) -> str:
    """The two greatest parts, such as "79 d 23 h"."""
    left, parts = abs(seconds), []
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts or size == 1:
            parts.append(f"{count:.0f} {name}")
        if len(parts) == _PARTS:
            break
    return ("-" if seconds < 0 else "") + " ".join(parts)
