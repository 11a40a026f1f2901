"""Writes the tables of this benchmark to `docs/robustness.md`."""

from benchmarks.models import ROOT

_PAGE = ROOT / "docs" / "robustness.md"
_BEGIN = "<!-- written by python -m benchmarks.hostile --page -->"
_END = "<!-- end of generated tables -->"


def write(tables: str) -> None:
    """Replace the tables between the marks of the page."""
    before, _, rest = _PAGE.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _PAGE.write_text(f"{before}{_BEGIN}\n\n{tables}\n\n{_END}{after}")
