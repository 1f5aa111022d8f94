"""Both codecs of base64: what is installed here, and what every Python has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qga.wire import base64


@pytest.fixture(scope="module", params=["pybase64", "binascii"])
def codec(request: pytest.FixtureRequest) -> Iterator[str]:
    """The codec of the tests of a module. It is used for the shortest text, too."""
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64, "BULK", 0)
        patch.setattr(base64._Codec, "looked", name == "binascii")
        patch.setattr(base64._Codec, "module", None)
        yield name
