"""Report words and phrases that do not belong in code, documentation and names of tests.

A reader who knows the field cannot use them: each has a plainer form, which is listed beside it.
"""

import re
import subprocess
import sys
from pathlib import Path

#: Patterns, and what to write instead.
WORDS = {
    r"\bwhoever\b": "name the caller, client, operator, thread …",
    r"\bstrangers?\b": "unauthenticated callers",
    r"\bin force\b": "current, loaded, configured",
    r"\btold of\b": "reported, counted, logged",
    r"\btells? of\b": "reports, describes",
    r"\b(take|takes|taken|took) (a|the) call down\b": "record the call",
    r"\blet in no longer\b": "no longer permitted",
    r"\bfound out\b": "determined, detected",
    r"\bso many (at|as|rows|calls|requests|threads|runs) \b": "this many, N",
    r"\b(who|what) (is|are) let in\b": "admitted",
    r"\bhave \w+ told\b": "notify",
    r"\bmade up\b|\bmade-up\b": "synthetic",
    r"\bculprits?\b": "failing request",
    r"\bfor ever\b": "forever",
    r"\banew\b": "again; restart, retry",
    r"\bby turns\b": "in turn, alternating",
    r"\bput(s|ting)? up with\b": "tolerate, allow",
    r"\b(held|holds?|holding) (\w+ ){0,3}against\b": "compare with",
    r"\bbroken off\b": "interrupted",
    r"\bas \w+ ha(s|ve) it\b": "as in",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bgo(es)? on with\b": "continue with",
    r"\bthat there (is|are) not\b": "unknown, missing",
    r"\bshow(s|n|ing)? (\w+ )?certificates?\b": "present a certificate",
    r"\bcan be had\b": "is available",
    r"\bheed(s|ed|ing)?\b": "handle, obey",
    r"\bsuch a one\b": "one",
    r"\bwell again\b": "healthy again",
    r"\btak(e|es|en|ing) (it |them )?down\b": "record",
    # Names of tests, with spaces for underscores.
    r"\bdef test (an?|the|what|who|whose|how|nor|those)\b": "what is verified, as in test_rejects_expired_request",
    r"\bdef test .*\b(no|any|some|every)(body|one)\b": "name the caller, request, worker …",
}

_CHECKED = ("*.py", "*.md", "*.yaml", "*.tpl", "*.proto", "*.sh", "Makefile", "Dockerfile", "setup.cfg")
#: The list itself, generated files, and the history.
_EXCLUDED = ("scripts/check_words.py", "inferd/_generated/", "CHANGELOG.md")


def _files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *_CHECKED], check=True, capture_output=True, text=True).stdout
    paths = [Path(line) for line in listed.splitlines() if not line.startswith(_EXCLUDED)]
    return [path for path in paths if path.exists()]


def _words_of(line: str) -> str:
    """Return the line; for the definition of a test, with the words of its name separated."""
    return line.replace("_", " ") if line.lstrip().startswith(("def test_", "async def test_")) else line


def main() -> int:
    """Print each place with a word of the list; return 1 if there is one."""
    patterns = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in WORDS.items()]
    found = 0
    for path in _files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            words = _words_of(line)
            for pattern, instead in patterns:
                match = pattern.search(words)
                if match:
                    found += 1
                    print(f"{path}:{number}: {match[0]!r}: write {instead}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
