"""Image names: what the runtimes accept, and nothing else."""

import pytest

from tunebuild.errors import TunebuildError
from tunebuild.image.oci.reference import ImageReference

_HEX = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "spelt", "registry", "full"),
    [
        ("bot", "bot:latest", "docker.io", "docker.io/library/bot:latest"),
        ("team/bot:v1", "team/bot:v1", "docker.io", "docker.io/team/bot:v1"),
        ("localhost/bot:1", "localhost/bot:1", "localhost", "localhost/bot:1"),
        (
            "reg.example.com:5000/a/b__c-d:V.1",
            "reg.example.com:5000/a/b__c-d:V.1",
            "reg.example.com:5000",
            "",
        ),
        (f"bot@{_HEX}", f"bot@{_HEX}", "docker.io", f"docker.io/library/bot@{_HEX}"),
        (f"r.io/bot:1@{_HEX}", f"r.io/bot:1@{_HEX}", "r.io", ""),
        ("[::1]:5000/bot", "[::1]:5000/bot:latest", "[::1]:5000", ""),
    ],
)
def test_good_names(text: str, spelt: str, registry: str, full: str) -> None:
    reference = ImageReference.parse(text)
    assert (str(reference), reference.registry) == (spelt, registry)
    assert reference.full_name == (full or spelt)
    assert ImageReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["", "Bot", "bot:", "bot:a b", "/bot", "bot/", "a//b", "bot@sha256:12", "http://x/y", "-bot", "b\n"],
)
def test_bad_names(text: str) -> None:
    with pytest.raises(TunebuildError, match="is not an image reference"):
        ImageReference.parse(text)
