"""Write the tables of docs/from-triton.md from the code; ``--check`` only reports whether they are current."""

import sys
from collections.abc import Iterator
from pathlib import Path

from inferd.models.triton.fields import FIELDS, Treatment
from inferd.models.triton.parameters import MODE, OPERATORS, PARAMETERS, WITHOUT_SETTING

PAGE = Path(__file__).parents[1] / "docs" / "from-triton.md"


def main() -> int:
    """Write the page, or check it."""
    page = PAGE.read_text(encoding="utf-8")
    current = render(page)
    if sys.argv[1:] == ["--check"]:
        if page == current:
            return 0
        print(f"{PAGE.name} is out of date: run {Path(__file__).name}", file=sys.stderr)
        return 1
    PAGE.write_text(current, encoding="utf-8")
    return 0


def render(page: str) -> str:
    """Return ``page`` with its tables as the code has them."""
    for name, lines in (("fields", _fields()), ("parameters", _parameters())):
        table = "\n".join(lines)
        begin, _, rest = page.partition(f"<!-- {name} -->\n")
        _, _, end = rest.partition("<!-- end -->")
        page = f"{begin}<!-- {name} -->\n{table}\n<!-- end -->{end}"
    return page


def _fields() -> Iterator[str]:
    yield "| field | | becomes, or why not |"
    yield "|---|---|---|"
    for path, (treatment, text) in FIELDS.items():
        shown = "" if treatment is Treatment.HONOURED else treatment
        yield f"| `{path.replace('.value.', '.').removesuffix('.key')}` | {shown} | {text} |"


def _parameters() -> Iterator[str]:
    yield "| parameter | | becomes, or why not |"
    yield "|---|---|---|"
    for key, parameter in PARAMETERS.items():
        yield f"| `{key}` | | `{'.'.join(each for each in parameter.path if '.' not in each)}` |"
    yield f"| `{MODE}` | | 1: `runtime.inter_op_threads`, 0 for the available cores; 0: `runtime.inter_op_threads: 1` |"
    yield f"| `{OPERATORS}` | | `runtime.inter_op_threads`, if `{MODE}` is 1 |"
    for key, why in WITHOUT_SETTING.items():
        yield f"| `{key}` | ignored | {why} |"


if __name__ == "__main__":
    sys.exit(main())
