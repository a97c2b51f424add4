"""Where the shipped configuration lives: `config/` of a checkout, or the copy inside an installed package."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def config_dir() -> Path:
    """Directory with `filter.toml`, `rules/` and `demo/`; the packaged copy wins where there is one."""
    packaged = _PACKAGE / "config"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "config"
