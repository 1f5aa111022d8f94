"""All codecs of base64: what is installed here, what glibc has, and what every Python has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qga.wire import b64_ntop, base64


@pytest.fixture(scope="module", params=["pybase64", "b64_ntop", "binascii"])
def codec(request: pytest.FixtureRequest) -> Iterator[str]:
    """The codec of the tests of a module. It is used for the shortest text, too."""
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base64, "BULK", 0)
        patch.setattr(base64._Codec, "looked", name != "pybase64")
        patch.setattr(base64._Codec, "module", None)
        encode = b64_ntop.load() if name == "b64_ntop" else None
        patch.setattr(base64._Codec, "encode", encode or base64._encode)
        yield name
