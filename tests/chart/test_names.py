"""Names have valid lengths, and long names do not collide."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, Object, RefusedError, Values, helm, parsed, rendered, scenario

#: Objects whose name derives from the release's: all templates except the Deployment, which has the StatefulSet's.
EVERYTHING: Values = yaml.safe_load(scenario("everything").read_text()) | {
    "tls": {"enabled": True, "certManager": {"enabled": True, "issuerRef": {"name": "internal"}}},
    "extraObjects": [],
}
EVERYTHING["auth"] |= {"policy": {"rules": []}}
EVERYTHING["monitoring"] |= {"podMonitor": {"enabled": False}, "serviceMonitor": {"enabled": True}}

LONGEST = 63
#: Length that Kubernetes appends to a StatefulSet's name in the label controller-revision-hash: a dash and ten letters.
REVISION = 11

_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


def _labels(value: object) -> Iterator[str]:
    """Return the values of all labels and selectors in an object."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in {"labels", "matchLabels"}:
                yield from below.values()
            else:
                yield from _labels(below)
    elif isinstance(value, list):
        for below in value:
            yield from _labels(below)


def _check(objects: dict[tuple[str, str], Object]) -> None:
    for (kind, name), each in objects.items():
        assert _SERVICE.fullmatch(name), name
        assert len(name) <= LONGEST - (REVISION if kind == "StatefulSet" else 0), (kind, name)
        for label in _labels(each):
            assert len(label) <= LONGEST, (kind, label)
            assert _LABEL.fullmatch(label), (kind, label)


def _render(case: tuple[str, Values]) -> dict[tuple[str, str], Object]:
    release, values = case
    return rendered(EVERYTHING | values, release=release)


def _word(length: int) -> str:
    """Return a name of this length, with a dash wherever it may be truncated."""
    return ("n-" * length)[: length - 1] + "n"


@pytest.mark.parametrize(
    ("value", "lengths"),
    [
        ("release", (1, *range(39, 47), 53)),
        ("nameOverride", (*range(44, 48), *range(57, 66), 200)),
        ("fullnameOverride", (*range(49, 53), 63, 64, 200)),
    ],
)
def test_names_of_all_lengths_are_short_enough(value: str, lengths: tuple[int, ...]) -> None:
    """Around every length at which truncation begins, and with the longest of the other name."""
    names = [_word(length) for length in lengths]
    if value == "release":
        cases: list[tuple[str, Values]] = [
            (name, {"nameOverride": given}) for name in names for given in ("", _word(64))
        ]
    else:
        cases = [("rel", {value: name}) for name in names]
    with ThreadPoolExecutor(4) as pool:
        for objects in pool.map(_render, cases):
            _check(objects)


def test_names_with_different_ends_do_not_collide() -> None:
    """Two releases of 53 letters in one namespace, and two objects of one release."""
    long = "r" * 50
    pairs: list[tuple[tuple[str, Any], tuple[str, Any]]] = [
        ((f"{long}abc", {}), (f"{long}xyz", {})),
        (("rel", {"nameOverride": f"{long * 2}a"}), ("rel", {"nameOverride": f"{long * 2}b"})),
        (("rel", {"fullnameOverride": f"{long * 2}a"}), ("rel", {"fullnameOverride": f"{long * 2}b"})),
        (("a.b", {}), ("a-b", {})),
    ]
    for one, other in pairs:
        first, second = _render(one), _render(other)
        assert not set(first) & set(second)
        _check(first)
    selectors = [
        each["spec"]["selector"]["matchLabels"]
        for case in pairs[1]
        for (kind, _), each in _render(case).items()
        if kind == "StatefulSet"
    ]
    assert selectors[0] != selectors[1]


def test_short_names_are_unchanged() -> None:
    """Truncated ones keep their beginning."""
    assert ("Deployment", "inferd") in rendered({"fullnameOverride": "inferd"})
    assert ("Deployment", "rel-inferd") in rendered()
    assert ("Deployment", "my-inferd") in rendered(release="my-inferd")
    assert ("Deployment", "n" * 50) in rendered({"fullnameOverride": "n" * 50})
    (name,) = (name for kind, name in rendered({"fullnameOverride": "n" * 51}) if kind == "Deployment")
    assert re.fullmatch("n{41}-[0-9a-f]{8}", name)


def test_rejects_release_name_that_begins_with_digit() -> None:
    """The error names the value to set."""
    with pytest.raises(RefusedError, match="fullnameOverride: expected a name that begins with a letter"):
        rendered(release="1a")
    assert ("Deployment", "a") in rendered({"fullnameOverride": "a"}, release="1a")


def test_build_versions_are_valid_labels(tmp_path: Path) -> None:
    """They may be longer than a label, and contain a plus."""
    chart = shutil.copytree(CHART, tmp_path / "inferd")
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    version = f"0.1.0-nightly+sha.{'0123456789abcdef' * 4}"
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": version, "appVersion": version}))
    objects = parsed(helm("helm4", "template", "rel", chart, "--namespace", "ns", values={"image": {"tag": "nightly"}}))
    _check(objects)
    labels = objects["Service", "rel-inferd"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/version"].startswith("0.1.0-nightly_sha.0123456789abcdef")
