"""The server that the tests of downloads ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.file_server import FileServer, serving
from tests.zinc.downloads import PATH, WHOLE


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as server:
        server.files[PATH] = WHOLE
        server.etags[PATH] = '"one"'
        yield server
