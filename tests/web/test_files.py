"""The files of the pages: small, sent once, and none but ours."""

from __future__ import annotations

import gzip

import httpx
import pytest

from tests.web.dashboards import browser, dashboard
from usbip_capture.web.files import PageFiles


def test_all_of_them_together_are_small() -> None:
    assert sum(PageFiles().sizes.values()) < 200_000


def test_a_browser_that_has_a_file_does_not_get_it_again() -> None:
    with dashboard() as (_, made), browser(made) as page:
        answer = page.get("/assets/uPlot.min.css")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert answer.headers["content-encoding"] == "gzip"
        tag = answer.headers["etag"]
        for given in (tag, f'"other", W/{tag}'):
            again = page.get("/assets/uPlot.min.css", headers={"if-none-match": given})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert page.get("/assets/uPlot.min.css", headers={"if-none-match": '"other"'}).status_code == 200
        plain = page.get("/assets/uPlot.min.css", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
        assert page.head("/assets/uPlot.min.css").content == b""
        assert page.post("/assets/uPlot.min.css").status_code == 405


@pytest.mark.parametrize(
    "path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", ".", "", "pages", "a\\..\\b", "uPlot.LICENSE"]
)
def test_nothing_else_is_sent(path: str) -> None:
    with dashboard() as (_, made):
        answer = httpx.get(f"{made.urls[0]}assets/{path}", timeout=60)
        assert answer.status_code == 404
        assert "import" not in answer.text


def test_what_is_compressed_is_what_is_there() -> None:
    files = PageFiles()._files
    assert all(gzip.decompress(file.compressed) == file.content for file in files.values())
