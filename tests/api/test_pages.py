"""The status pages over HTTP: what they hold, whom they let in, what they never do."""

import base64
import gzip
import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from answers import problem_of
from asgi import Api, serving
from builders import NOW, WORLD, raw_document
from exiting import compute_world
from stored import contribution, outcome

from api.app import create_app
from api.pages.access import COOKIE, MAX_COOKIE_TOKEN_BYTES
from api.pages.assets import assets
from riskhub.auth import Scope, TokenSpec
from riskhub.errors import StoreUnavailable
from riskhub.hub import Hub
from riskhub.settings import Settings

READER, WRITER = "the readers' token; with ünïcode", "the writers token"
TOKENS = (
    TokenSpec(name="reader", secret=READER, scopes=frozenset({Scope.READ})),
    TokenSpec(name="writer", secret=WRITER, scopes=frozenset({Scope.WRITE})),
)
PAGES = ("/", f"/worlds/{WORLD}")
HOSTILE = '"><script>alert(1)</script>&{{ 7*7 }}'


@contextmanager
def guarded(hub: Hub, settings: Settings, **guard: Any) -> Iterator[Api]:
    with serving(create_app(settings.model_copy(update={"tokens": TOKENS} | guard), hub)) as api:
        yield api


def cookie_of(token: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={base64.urlsafe_b64encode(token.encode()).decode()}"}


def log_in(api: Api, token: str, there: str = "/", **headers: str) -> httpx.Response:
    return api.post("/login", data={"token": token, "next": there}, headers=headers)


def text_of(response: httpx.Response, status: int = 200) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response.text


# --- what they hold -------------------------------------------------------------------------------


def test_an_empty_hub_says_what_to_do(api: Api) -> None:
    page = text_of(api.get("/"))
    assert "Nothing has landed yet" not in page  # Redis is not there, which comes first
    assert "riskhub publish" in page
    assert "riskhub demo history" in page


def test_a_world_that_has_only_landed_is_there_and_says_what_is_missing(api: Api) -> None:
    api.post(f"/risk-hub/worlds/{WORLD}/snapshots", content=raw_document())
    assert "no numbers yet" in text_of(api.get("/"))
    page = text_of(api.get(f"/worlds/{WORLD}"))
    for said in ("No numbers yet", "No outcomes of this stage yet", "No stress results yet"):
        assert said in page
    assert "waits" in page


def test_a_world_is_shown_with_its_numbers(api: Api, hub: Hub) -> None:
    for number in range(3):
        as_of = NOW - timedelta(days=2 - number, minutes=2)
        position = compute_world(
            hub.store, 0.1, as_of=as_of, version=f"v{number}", pnl={"2008": -0.3}
        )
    day = as_of.date()
    rows = [contribution(position, "AAA", 0.03) | {"day": day}]
    hub.store.write_days({"risk_contributions": rows}, [day], replace=False)
    page = text_of(api.get("/"))
    for said in ("fresh", "5.00\u202f%", "10.00\u202f%", "AAA", "100\u202f%", "<polyline"):
        assert said in page
    page = text_of(api.get(f"/worlds/{WORLD}"))
    for said in ("v2", "−30.0\u202f%", "accepted", f"/risk-hub/worlds/{WORLD}/risk?stage=paper"):
        assert said in page


def test_days_that_exceeded_are_marked(api: Api, hub: Hub) -> None:
    position = compute_world(hub.store, 0.1, as_of=NOW - timedelta(days=2), version="a")
    day = NOW.date() - timedelta(days=1)
    row = outcome(position, day, 0.07, world_id=WORLD, stage="paper")
    hub.store.write_outcomes([row], [day])
    page = text_of(api.get(f"/worlds/{WORLD}"))
    assert "1 of the last 1 days lost more than their historical VaR" in page
    assert f'<tr class="exceeded"><th scope="row">{day}</th><td class="number">−7.000' in page


def test_versions_are_paged(api: Api, hub: Hub) -> None:
    url = f"/risk-hub/worlds/{WORLD}/snapshots"
    for number in range(25):
        assert api.post(url, content=raw_document(version=f"v{number:02}")).status_code == 201
    first = text_of(api.get(f"/worlds/{WORLD}"))
    (older,) = re.findall(r'href="([^"]+)" rel="next"', first)
    second = text_of(api.get(f"/worlds/{WORLD}{html.unescape(older)}"))
    assert ("v24" in first, "v04" in first) == (True, False)
    assert ("v24" in second, "v04" in second) == (False, True)
    assert 'rel="next"' not in second


def test_a_rejected_version_says_why(api: Api, hub: Hub) -> None:
    compute_world(hub.store, 0.1, as_of=NOW, version="bad", accepted=False)
    assert "rejected" in text_of(api.get(f"/worlds/{WORLD}"))
    assert "in quarantine" in text_of(api.get("/"))


@pytest.mark.parametrize(
    "path", ["/worlds/nobody", f"/worlds/{WORLD}?stage=nowhere", "/worlds/%3Cb%3E"]
)
def test_an_unknown_world_is_a_page_that_says_so(api: Api, path: str) -> None:
    api.post(f"/risk-hub/worlds/{WORLD}/snapshots", content=raw_document())
    page = text_of(api.get(path), 404)
    assert "There is no world" in page
    assert 'href="/"' in page
    assert "<b>" not in page


@pytest.mark.parametrize("query", ["cursor=x", "stag=live", "stage=a&stage=b"])
def test_what_is_no_parameter_is_a_page_that_says_so(api: Api, query: str) -> None:
    assert "is" in text_of(api.get(f"/worlds/{WORLD}?{query}"), 422)


def test_without_the_database_the_page_says_so(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the database can't be used now")

    monkeypatch.setattr(Hub, "freshness", away)
    response = api.get("/")
    assert "can&#39;t be used now" in text_of(response, 503)
    assert response.headers["retry-after"].isdecimal()


# --- what they never do ---------------------------------------------------------------------------


def test_what_producers_write_is_text_and_nothing_else(api: Api) -> None:
    for stage, version in ((HOSTILE, "v1"), ("paper", HOSTILE)):
        answer = api.post(
            f"/risk-hub/worlds/{WORLD}/snapshots",
            content=raw_document(version=version),
            headers={"X-Stage": stage, "X-Actor": HOSTILE},
        )
        assert answer.status_code == 201
    one = text_of(api.get(f"/worlds/{WORLD}?stage=paper"))
    for page in (text_of(api.get("/")), one):
        assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;{{ 7*7 }}" in one
    links = [html.unescape(link) for link in re.findall(r'href="([^"]*)"', one)]
    assert any("%3Cscript%3E" in link for link in links)
    for link in links:
        assert "<" not in link
        assert "#" in link or api.get(link).status_code == 200


@pytest.mark.parametrize("path", [*PAGES, "/login", "/worlds/nobody"])
def test_nothing_that_stands_in_a_page_is_run(hub: Hub, settings: Settings, path: str) -> None:
    compute_world(hub.store, 0.1, as_of=NOW, version="a", pnl={"2008": -0.3})
    with guarded(hub, settings) as api:
        response = api.get(path, headers={} if path == "/login" else cookie_of(READER))
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    assert not re.search(r'<script(?! src="/static/)|<style|\sstyle=|\son\w+=', response.text)
    assert not re.search(r'(src|href)="(https?:)?//', response.text)


def test_a_page_is_zipped_for_who_takes_it(api: Api, hub: Hub) -> None:
    compute_world(hub.store, 0.1, as_of=NOW, version="a", pnl={"2008": -0.3})
    for headers, encoding in (
        ({"Accept-Encoding": "gzip"}, "gzip"),
        ({"Accept-Encoding": ""}, None),
    ):
        response = api.get(f"/worlds/{WORLD}", headers=headers)
        assert response.headers.get("content-encoding") == encoding
        assert "Expected shortfall" in text_of(response)


def test_pages_are_no_part_of_the_api_that_is_described(api: Api) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    assert not {"/", "/login", "/logout", "/worlds/{world_id}", "/static/{name}"} & paths.keys()


# --- files ----------------------------------------------------------------------------------------


def test_files_are_kept_for_ever_under_the_name_of_their_content(api: Api) -> None:
    page = text_of(api.get("/worlds/nobody"), 404)
    (style,) = re.findall(r'href="(/static/[^"]+\.css)"', page)
    response = api.get(style, headers={"Accept-Encoding": "gzip"})
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-type"] == "text/css; charset=utf-8"
    source = Path("api/pages/static/pages.css").read_bytes()
    assert response.content == source == gzip.decompress(assets()["pages.css"].zipped)
    assert api.get(style, headers={"Accept-Encoding": ""}).content == source


@pytest.mark.parametrize(
    "name", ["pages.css", "NOTICE.md", "..%2Fassets.py", "pages.000000000000.css"]
)
def test_no_other_file_is_served(api: Api, name: str) -> None:
    assert api.get(f"/static/{name}").status_code == 404


def test_what_is_shipped_is_what_the_notice_says() -> None:
    notice = Path("api/pages/static/NOTICE.md").read_text()
    (version,) = set(re.findall(r"\| (1\.\d+\.\d+) \|", notice))
    assert f"(v{version})" in Path("api/pages/static/uPlot.js").read_text()[:200]


# --- who is let in --------------------------------------------------------------------------------


def test_without_a_token_the_browser_is_led_to_the_login_and_back(
    hub: Hub, settings: Settings
) -> None:
    with guarded(hub, settings) as api:
        away = api.get(f"/worlds/{WORLD}?stage=paper")
        assert (away.status_code, away.headers["location"]) == (
            303,
            f"/login?next=%2Fworlds%2F{WORLD}%3Fstage%3Dpaper",
        )
        assert f'value="/worlds/{WORLD}?stage=paper"' in text_of(api.get(away.headers["location"]))
        back = log_in(api, READER, f"/worlds/{WORLD}?stage=paper")
        assert back.status_code == 303
        assert back.headers["location"] == f"/worlds/{WORLD}?stage=paper"
        kept = back.headers["set-cookie"].lower()
        for flag in ("httponly", "samesite=strict", "path=/", "max-age="):
            assert flag in kept
        assert "secure" not in kept
        assert READER not in back.headers["set-cookie"]


@pytest.mark.parametrize("path", ["/", "/worlds/nobody"])
def test_the_cookie_opens_the_pages(hub: Hub, settings: Settings, path: str) -> None:
    with guarded(hub, settings) as api:
        assert api.get(path).status_code == 303
        page = api.get(path, headers=cookie_of(READER))
        assert page.status_code in (200, 404)
        assert "Log out" in page.text
        bearer = {"Authorization": f"Bearer {READER}".encode()}
        assert api.get(path, headers=bearer).status_code in (200, 404)  # type: ignore[arg-type]


def test_the_json_api_knows_no_cookie(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings) as api:
        for path in (f"/risk-hub/worlds/{WORLD}/snapshots/latest", "/metrics", "/budgets"):
            problem_of(api.get(path, headers=cookie_of(READER)), 401)
        url = f"/risk-hub/worlds/{WORLD}/snapshots"
        problem_of(api.post(url, content=raw_document(), headers=cookie_of(WRITER)), 401)


@pytest.mark.parametrize(
    "cookie", ["", "!", "bm9ib2R5", "ünï".encode().decode("latin-1"), "a" * 4000]
)
def test_another_cookie_opens_nothing(hub: Hub, settings: Settings, cookie: str) -> None:
    with guarded(hub, settings) as api:
        sent = {"Cookie": f"{COOKIE}={cookie}".encode("latin-1")}
        assert api.get("/", headers=sent).status_code == 303  # type: ignore[arg-type]


def test_a_token_that_may_only_write_opens_nothing(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings) as api:
        assert "does not allow to read" in text_of(log_in(api, WRITER), 401)
        assert api.get("/", headers=cookie_of(WRITER)).status_code == 303


@pytest.mark.parametrize("token", ["", "wrong", "x" * (MAX_COOKIE_TOKEN_BYTES + 1)])
def test_a_wrong_token_is_refused_and_not_repeated(
    hub: Hub, settings: Settings, token: str
) -> None:
    with guarded(hub, settings) as api:
        response = log_in(api, token)
        page = text_of(response, 401)
        assert "set-cookie" not in response.headers
        assert 'role="alert"' in page
        assert not token or f'"{token}"' not in page


@pytest.mark.parametrize(
    "there",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/%2F/evil", "evil", "/docs",
     "/worlds/a\r\nSet-Cookie: a=b", "/worlds/../logout", "javascript:alert(1)", "/worlds/a?x=y"],
)  # fmt: skip
def test_the_login_leads_nowhere_but_to_a_page(hub: Hub, settings: Settings, there: str) -> None:
    with guarded(hub, settings) as api:
        asked = api.get("/login", params={"next": there})
        assert 'name="next" value="/"' in text_of(asked)
        assert log_in(api, READER, there).headers["location"] == "/"


def test_the_cookie_is_secure_where_tls_is_spoken(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings) as api:
        behind_a_proxy = log_in(api, READER, **{"X-Forwarded-Proto": "https"})
        itself = api.post("https://hub/login", data={"token": READER})
        for response in (behind_a_proxy, itself):
            assert "; secure" in response.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "same-site", "Origin": "http://hub"}],
)  # fmt: skip
def test_no_other_site_logs_a_browser_in_or_out(
    hub: Hub, settings: Settings, headers: dict[str, str]
) -> None:
    with guarded(hub, settings) as api:
        for response in (log_in(api, READER, **headers), api.post("/logout", headers=headers)):
            problem_of(response, 403)
            assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://hub"}, {"Sec-Fetch-Site": "same-origin"}, {}]
)
def test_its_own_form_does(hub: Hub, settings: Settings, headers: dict[str, str]) -> None:
    with guarded(hub, settings) as api:
        assert log_in(api, READER, **headers).status_code == 303
        out = api.post("/logout", headers=headers)
        assert (out.status_code, out.headers["location"]) == (303, "/login")
        assert f'{COOKIE}=""' in out.headers["set-cookie"]
        assert "max-age=0" in out.headers["set-cookie"].lower()


def test_a_login_too_large_is_refused(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings) as api:
        problem_of(api.post("/login", content=b"token=" + b"x" * 20_000), 413)


def test_where_reads_need_no_token_pages_need_none(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings, read_auth=False) as api:
        assert "Log out" not in text_of(api.get("/"))
        assert api.get("/login").headers["location"] == "/"


def test_who_is_logged_in_needs_no_login(hub: Hub, settings: Settings) -> None:
    with guarded(hub, settings) as api:
        assert api.get("/login", headers=cookie_of(READER)).headers["location"] == "/"


def test_a_token_that_was_taken_away_opens_nothing_any_more(
    hub: Hub, settings: Settings, tmp_path: Path
) -> None:
    with guarded(hub, settings, tokens=TOKENS[1:]) as api:
        away = api.get("/", headers=cookie_of(READER))
        assert (away.status_code, away.headers["location"]) == (303, "/login?next=%2F")
