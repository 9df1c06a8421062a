"""Stores that are down, refuse or never answer: a named error, without a secret in it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, TCPServer, ThreadingTCPServer

import pytest

from riskhub.blobs import BlobSettings, BlobStore, open_blobs
from riskhub.errors import BlobAltered, BlobMissing, BlobsUnavailable, RefRefused
from riskhub.settings import Settings

SECRET = "s3cret"
DIGEST = "a" * 64
USES: dict[str, Callable[[BlobStore, str], object]] = {
    "put": lambda blobs, ref: blobs.put(b"{}"),
    "get": lambda blobs, ref: blobs.get(ref),
    "exists": lambda blobs, ref: blobs.exists(ref),
    "refs": lambda blobs, ref: list(blobs.refs()),
    "delete": lambda blobs, ref: blobs.delete(ref),
    "ping": lambda blobs, ref: blobs.ping(),
}
REDIS_REF = f"redis:risk-blobs:sha256:{DIGEST}"
S3_REF = f"s3://bucket/risk-blobs/sha256/{DIGEST}.json"


def opened(settings: BlobSettings) -> BlobStore:
    blobs = open_blobs(Settings(blobs=settings))
    assert blobs is not None
    return blobs


def redis_at(port: int) -> BlobStore:
    url = f"redis://user:{SECRET}@127.0.0.1:{port}/0"
    return opened(BlobSettings(kind="redis", redis_url=url, timeout_sec=0.1))


def s3_at(port: int, timeout_sec: float = 30.0) -> BlobStore:
    return opened(
        BlobSettings.model_validate(
            {
                "kind": "s3",
                "s3_bucket": "bucket",
                "s3_endpoint_url": f"http://127.0.0.1:{port}",
                "s3_access_key_id": "key",
                "s3_secret_access_key": SECRET,
                "timeout_sec": timeout_sec,
            }
        )
    )


def told_by(use: Callable[[BlobStore, str], object], blobs: BlobStore, ref: str) -> str:
    with pytest.raises(BlobsUnavailable) as caught:
        use(blobs, ref)
    for shown in (str(caught.value), repr(caught.value), repr(blobs), repr(vars(blobs))):
        assert SECRET not in shown
    return str(caught.value)


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@contextmanager
def serving(server: TCPServer) -> Iterator[int]:
    """The port of a server of ours, while it runs in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], Answer]) -> Iterator[int]:
    """The port of an HTTP server of which each request is answered by `answer`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # or it leaves a client waiting that asks whether to go on

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self.close_connection = True
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield port


def error_page(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>of {SECRET}</Message></Error>".encode()


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_redis_that_is_down_is_named(
    use: Callable[[BlobStore, str], object], free_port: Callable[[], int]
) -> None:
    port = free_port()
    assert str(port) in told_by(use, redis_at(port), REDIS_REF)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_redis_that_never_answers_is_given_up(use: Callable[[BlobStore, str], object]) -> None:
    with silent_port() as port:
        assert "Timeout" in told_by(use, redis_at(port), REDIS_REF)


@pytest.mark.parametrize(
    "reply",
    [
        "-WRONGPASS invalid username-password pair or user is disabled.",
        f"-ERR unknown command 'AUTH', with args beginning with: 'user' '{SECRET}'",
    ],
)
def test_a_redis_that_refuses_is_named_without_what_it_repeats(reply: str) -> None:
    class Refusing(BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(65536):
                self.request.sendall(reply.encode() + b"\r\n")

    with serving(ThreadingTCPServer(("127.0.0.1", 0), Refusing)) as port:
        assert "Error" in told_by(USES["ping"], redis_at(port), REDIS_REF)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_s3_that_is_down_is_named(
    use: Callable[[BlobStore, str], object], free_port: Callable[[], int]
) -> None:
    assert "EndpointConnectionError" in told_by(use, s3_at(free_port()), S3_REF)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_s3_that_never_answers_is_given_up(use: Callable[[BlobStore, str], object]) -> None:
    with silent_port() as port:
        assert "ReadTimeoutError" in told_by(use, s3_at(port, timeout_sec=0.1), S3_REF)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_an_s3_that_refuses_is_named(use: Callable[[BlobStore, str], object]) -> None:
    with answering(lambda _: (403, {}, error_page("AccessDenied"))) as port:
        told = told_by(use, s3_at(port), S3_REF)
    assert told.endswith(("is answered with AccessDenied", "is answered with 403"))


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_bucket_that_is_not_there_is_no_empty_store(
    use: Callable[[BlobStore, str], object],
) -> None:
    with answering(lambda _: (404, {}, error_page("NoSuchBucket"))) as port:
        told_by(use, s3_at(port), S3_REF)


def test_a_body_that_breaks_off_is_unavailable_and_not_altered() -> None:
    with answering(lambda _: (200, {"Content-Length": "1000"}, b"{")) as port:
        told_by(USES["get"], s3_at(port), S3_REF)


def test_a_body_that_stops_is_given_up() -> None:
    done = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        request.wfile.flush()
        done.wait()
        return 200, {}, b""

    with answering(answer) as port:
        try:
            told = told_by(USES["get"], s3_at(port, timeout_sec=0.1), S3_REF)
        finally:
            done.set()
    assert "ReadTimeoutError" in told


def test_a_body_without_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riskhub.blobs.s3.MAX_BLOB_BYTES", 10)
    with (
        answering(lambda _: (200, {"Content-Length": str(10**15)}, b"x" * 100)) as port,
        pytest.raises(BlobAltered),
    ):
        s3_at(port).get(S3_REF)


@pytest.mark.parametrize(
    ("status", "code"), [(501, "NotImplemented"), (409, "ConditionalRequestConflict")]
)
def test_an_s3_that_cannot_put_if_absent_is_put_to_after_a_look(status: int, code: str) -> None:
    kept: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> Answer:
        if request.command == "GET":
            return 404, {}, error_page("NoSuchKey")
        if "If-None-Match" in request.headers:
            return status, {}, error_page(code)
        kept.append(request.path)
        return 200, {}, b""

    with answering(answer) as port:
        ref = s3_at(port).put(b"{}")

    assert [f"s3:/{path.partition('?')[0]}" for path in kept] == [ref]


def test_without_credentials_s3_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    blobs = opened(
        BlobSettings(kind="s3", s3_bucket="bucket", s3_endpoint_url="http://127.0.0.1:9")
    )
    assert "NoCredentialsError" in told_by(USES["ping"], blobs, S3_REF)


def test_a_foreign_reference_is_refused_where_nothing_can_be_reached(
    free_port: Callable[[], int],
) -> None:
    port = free_port()
    for blobs in (redis_at(port), s3_at(port)):
        for use in (blobs.get, blobs.exists, blobs.delete):
            with pytest.raises(RefRefused):
                use(f"http://127.0.0.1:{port}/sha256/{DIGEST}.json")
        assert not blobs.accepts("file:///etc/passwd")


def test_what_is_missing_is_told_from_what_cannot_be_reached() -> None:
    def answer(request: BaseHTTPRequestHandler) -> Answer:
        is_bucket = request.path.partition("?")[0].strip("/") == "bucket"
        return (200, {}, b"") if is_bucket else (404, {}, error_page("NoSuchKey"))

    with answering(answer) as port:
        blobs = s3_at(port)
        assert not blobs.exists(S3_REF)
        with pytest.raises(BlobMissing):
            blobs.get(S3_REF)
