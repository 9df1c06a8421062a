"""How each input is judged: what is fresh, what falls back, what is taken as the worst."""

import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from riskhub.governor.inputs import (
    GovernorInputs,
    Input,
    PortfolioState,
    cluster_input,
    drawdown_input,
    heat_input,
    portfolio_input,
    read_inputs,
    regime_input,
)
from riskhub.governor.settings import GovernorSettings

NOW = 1_738_000_000.0
HEAT_URL = "http://heat.example/metrics"
WRONG_TYPE = redis.ResponseError("WRONGTYPE Operation against a key")

NO_NUMBERS = ["", "n/a", "nan", "inf", "-inf", "1e999", "1_0", " 1", "0x1", "١", b"\xff"]


def judge_portfolio(
    equity: str | None = "100000", drawdown: str | None = "0.1", timestamp: str | None = str(NOW)
) -> Input[PortfolioState | None]:
    return portfolio_input((equity, drawdown, timestamp), now=NOW, stale_sec=30)


# --- portfolio -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "policy", "told"),
    [
        (0.0, "fresh", 0.0),
        (29.999, "fresh", 29.999),
        (30.0, "stale", 30.0),
        (86_400.0, "stale", 86_400.0),
        (-2.0, "fresh", 0.0),
    ],
)
def test_a_state_is_fresh_for_thirty_seconds(age: float, policy: str, told: float) -> None:
    judged = judge_portfolio(timestamp=repr(NOW - age))

    assert judged.policy == policy
    assert judged.age_sec == pytest.approx(told, abs=1e-6)
    assert judged.value == PortfolioState(100_000.0, 0.1, NOW - age)


@pytest.mark.parametrize("timestamp", [repr(NOW + 2.1), repr(NOW * 1000), None, *NO_NUMBERS])
def test_a_state_of_no_known_time_is_no_state(timestamp: str | None) -> None:
    assert judge_portfolio(timestamp=timestamp) == Input(None, "malformed")


@pytest.mark.parametrize(
    ("equity", "policy"),
    [
        (None, "missing"),
        ("0", "out_of_range"),
        ("-0.0", "out_of_range"),
        ("-5", "out_of_range"),
        *((text, "malformed") for text in NO_NUMBERS),
    ],
)
def test_equity_that_is_no_state_at_all(equity: str | None, policy: str) -> None:
    assert judge_portfolio(equity=equity) == Input(None, policy)


@pytest.mark.parametrize("drawdown", [None, *NO_NUMBERS])
def test_a_drawdown_that_is_no_number_spoils_nothing(drawdown: str | None) -> None:
    assert judge_portfolio(drawdown=drawdown).value == PortfolioState(100_000.0, None, NOW)


# --- cluster stress and volatility -----------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, Input(0.0, "missing")),
        ("0", Input(0.0, "fresh")),
        (b"0.25", Input(0.25, "fresh")),
        ("1", Input(1.0, "fresh")),
        ("1e-3", Input(0.001, "fresh")),
        ("1.0001", Input(1.0, "out_of_range")),
        ("-0.1", Input(1.0, "out_of_range")),
        *((text, Input(1.0, "malformed")) for text in NO_NUMBERS),
    ],
)
def test_cluster_stress(raw: str | bytes | None, expected: Input[float]) -> None:
    assert cluster_input([raw]) == expected


@pytest.mark.parametrize(
    ("regime", "sigma", "expected"),
    [
        ("LOW_VOL", None, Input(0.0, "fresh")),
        (b"NORMAL_VOL", None, Input(0.33, "fresh")),
        ("HIGH_VOL", "0.001", Input(0.67, "fresh")),
        ("EXTREME_VOL", "broken", Input(1.0, "fresh")),
        (None, "0.031", Input(1.0, "fresh", second_choice=True)),
        (None, "0.03", Input(0.67, "fresh", second_choice=True)),
        (None, "0.021", Input(0.67, "fresh", second_choice=True)),
        (None, "0.02", Input(0.33, "fresh", second_choice=True)),
        (None, b"0.005", Input(0.33, "fresh", second_choice=True)),
        (None, "0.0049", Input(0.0, "fresh", second_choice=True)),
        ("high_vol", "0.021", Input(1.0, "malformed")),
        ("NOT_LOW_VOL", "0.001", Input(1.0, "malformed")),
        ("LOW_VOLATILITY", None, Input(1.0, "malformed")),
        (" LOW_VOL", None, Input(1.0, "malformed")),
        (None, None, Input(0.33, "missing")),
        ("high_vol", None, Input(1.0, "malformed")),
        ("", None, Input(1.0, "malformed")),
        (None, "-0.01", Input(1.0, "out_of_range", second_choice=True)),
        *((None, text, Input(1.0, "malformed", second_choice=True)) for text in NO_NUMBERS),
    ],
)
def test_volatility_regime(
    regime: str | bytes | None, sigma: str | bytes | None, expected: Input[float]
) -> None:
    assert regime_input([regime, sigma]) == expected


# --- heat ------------------------------------------------------------------------------------

PAGE = """\
# HELP portfolio_heat_composite_normalized composite heat
# TYPE portfolio_heat_composite_normalized gauge
portfolio_heat_composite_normalized_total 0.9
{heat}
p26_heat_value 0.7
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("portfolio_heat_composite_normalized 0.25", Input(0.25, "fresh")),
        ('portfolio_heat_composite_normalized{desk="a b}"} 0.25 1738000', Input(0.25, "fresh")),
        (
            'portfolio_heat_composite_normalized{d="1"} 0.1\n'
            'portfolio_heat_composite_normalized{d="2"} 0.6',
            Input(0.6, "fresh"),
        ),
        ("portfolio_heat_composite_normalized 25", Input(1.0, "out_of_range")),
        ("portfolio_heat_composite_normalized -0.01", Input(1.0, "out_of_range")),
        ("portfolio_heat_composite_normalized NaN", Input(1.0, "malformed")),
        ("portfolio_heat_composite_normalized +Inf", Input(1.0, "malformed")),
        ("", Input(0.7, "fresh", second_choice=True)),
    ],
)
def test_heat_on_a_page(line: str, expected: Input[float]) -> None:
    assert heat_input(PAGE.format(heat=line)) == expected


def test_a_page_without_heat_is_taken_as_the_worst() -> None:
    assert heat_input("up 1\n") == Input(1.0, "missing")
    assert heat_input("") == Input(1.0, "missing")


# --- what must hold whatever is written ------------------------------------------------------

anything = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=12),
    st.floats().map(repr),
    st.sampled_from(["LOW_VOL", "0.5", "-1", "nan"]),
    st.none(),
)


@given(anything)
def test_any_cluster_stress_is_usable_and_broken_is_the_worst(raw: str | bytes | None) -> None:
    assert_usable(cluster_input([raw]))


@given(anything, anything)
def test_any_regime_is_usable_and_broken_is_the_worst(
    regime: str | bytes | None, sigma: str | bytes | None
) -> None:
    assert_usable(regime_input([regime, sigma]))


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1))
def test_any_heat_is_usable_and_broken_is_the_worst(raw: str) -> None:
    assert_usable(heat_input(f"p26_heat_value {raw}\n"))


@given(anything, anything, anything)
def test_any_portfolio_is_a_state_or_none(
    equity: str | None, drawdown: str | None, timestamp: str | None
) -> None:
    judged = judge_portfolio(equity, drawdown, timestamp)

    assert (judged.value is not None) == (judged.policy in {"fresh", "stale"})
    if judged.value is not None:
        assert 0 < judged.value.equity_usd < float("inf")


def assert_usable(judged: Input[float]) -> None:
    assert 0.0 <= judged.value <= 1.0
    if judged.policy in {"malformed", "out_of_range"}:
        assert judged.value == 1.0


# --- reading ---------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["bytes", "text"])
def client(either_redis_url: str, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(either_redis_url, decode_responses=request.param) as connected:
        yield connected


def read(
    client: redis.Redis, settings: GovernorSettings, http: httpx.Client | None = None
) -> GovernorInputs:
    return read_inputs(client, now=NOW, settings=settings, http=http).inputs


def test_all_is_read_for_the_symbols_with_a_position(client: redis.Redis) -> None:
    client.hset(
        "quantum:state:portfolio",
        mapping={"equity_usd": "50000", "drawdown": "0.05", "timestamp": str(int(NOW) - 4)},
    )
    client.hset("quantum:position:snapshot:BTCUSDT", "qty", "1")
    client.hset("quantum:state:positions:BTCUSDT", "position_amt", "1")
    client.hset("quantum:state:positions:ETHUSDT", "position_amt", "2")
    client.hset("quantum:position:snapshot:", "qty", "of no symbol")
    client.hset("quantum:state:market:BTCUSDT", "vol_regime", "HIGH_VOL")
    client.hset("quantum:state:market:DOGEUSDT", "vol_regime", "HIGH_VOL")
    client.hset("quantum:cluster:stress:majors", "stress", "0.4")
    settings = GovernorSettings(clusters={"BTCUSDT": "majors", "DOGEUSDT": "memes"})

    inputs = read(client, settings)

    assert inputs.portfolio == Input(PortfolioState(50_000.0, 0.05, NOW - 4), "fresh", 4.0)
    assert inputs.symbols == ("BTCUSDT", "ETHUSDT")
    assert inputs.heat == Input(0.0, "not_configured")
    assert inputs.clusters == {"majors": Input(0.4, "fresh"), "default": Input(0.0, "missing")}
    assert inputs.regimes == {"BTCUSDT": Input(0.67, "fresh"), "ETHUSDT": Input(0.33, "missing")}


def test_an_empty_redis_is_missing_everything(client: redis.Redis) -> None:
    inputs = read(client, GovernorSettings())

    assert inputs.portfolio == Input(None, "missing")
    assert inputs.symbols == ()


def test_a_key_of_the_wrong_type_is_malformed_input(client: redis.Redis) -> None:
    for key in ("state:portfolio", "state:market:BTCUSDT", "cluster:stress:default"):
        client.set(f"quantum:{key}", "no hash")
    client.set("quantum:position:snapshot:BTCUSDT", "{}")

    inputs = read(client, GovernorSettings())

    assert inputs.portfolio == Input(None, "malformed")
    assert inputs.clusters == {"default": Input(1.0, "malformed")}
    assert inputs.regimes == {"BTCUSDT": Input(1.0, "malformed", second_choice=True)}


def test_a_redis_out_of_reach_is_an_error(free_port: Callable[[], int]) -> None:
    with (
        redis.Redis(port=free_port(), retry=None) as client,
        pytest.raises(redis.ConnectionError),
    ):
        read_inputs(client, now=NOW, settings=GovernorSettings(), http=None)


def test_what_is_no_text_is_malformed_and_what_is_no_symbol_is_refused(
    client: redis.Redis,
) -> None:
    position = b"quantum:position:snapshot:"
    for name in (b"BTCUSDT", b"\xff\xfe", b"cluster:majors", b"x" * 129, b"A\nB", b""):
        client.hset(position + name, "qty", "1")
    client.hset("quantum:state:market:BTCUSDT", "vol_regime", b"\xff\xfe")
    client.hset("quantum:cluster:stress:default", "stress", b"\xff")

    inputs = read(client, GovernorSettings())

    assert inputs.symbols == ("BTCUSDT",)
    assert inputs.refused == ("", "A\nB", "\\xff\\xfe", "cluster:majors", "x" * 129)
    assert inputs.regimes == {"BTCUSDT": Input(1.0, "malformed")}
    assert inputs.clusters == {"default": Input(1.0, "malformed")}


def test_a_symbol_may_have_colons_and_other_keys_are_no_positions(client: redis.Redis) -> None:
    for key in ("position:snapshot:BTC:PERP", "state:positions:ETH/USD", "position:snapshot:Äß"):
        client.hset(f"quantum:{key}", "qty", "1")
    for key in ("state:positionsX:A", "portfolio:budget:s:A", "position:snapshotX:A", "state:a:b"):
        client.hset(f"quantum:{key}", "qty", "1")

    inputs = read(client, GovernorSettings())

    assert inputs.symbols == ("BTC:PERP", "ETH/USD", "Äß")
    assert inputs.refused == ()


@pytest.mark.parametrize(
    ("drawdown", "expected"),
    [
        ("0.25", Input(0.25, "fresh")),
        (None, Input(0.0, "missing")),
        ("25", Input(1.0, "out_of_range")),
        ("-0.25", Input(1.0, "out_of_range")),
        ("nan", Input(1.0, "malformed")),
    ],
)
def test_drawdown(drawdown: str | None, expected: Input[float]) -> None:
    assert drawdown_input(["100000", drawdown, str(NOW)]) == expected


def test_the_drawdown_of_a_state_that_is_not_fresh_is_not_read(client: redis.Redis) -> None:
    fields = {"equity_usd": "1", "drawdown": "0.5", "timestamp": str(NOW - 30)}
    client.hset("quantum:state:portfolio", mapping=fields)
    assert read(client, GovernorSettings()).drawdown == Input(0.0, "missing")
    client.hset("quantum:state:portfolio", "timestamp", str(NOW - 29))
    assert read(client, GovernorSettings()).drawdown == Input(0.5, "fresh")


def read_heat(
    client: redis.Redis, answer: Callable[[httpx.Request], httpx.Response]
) -> Input[float]:
    settings = GovernorSettings(heat_url=HEAT_URL)
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        return read(client, settings, http).heat


def test_heat_is_scraped_once_per_cycle(client: redis.Redis) -> None:
    client.hset("quantum:position:snapshot:BTCUSDT", "qty", "1")
    client.hset("quantum:position:snapshot:ETHUSDT", "qty", "1")
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, text="p26_heat_value 0.5\n")

    assert read_heat(client, answer) == Input(0.5, "fresh", second_choice=True)
    assert [str(request.url) for request in asked] == [HEAT_URL]
    assert asked[0].extensions["timeout"]["read"] == 2.0


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_heat_page_that_refuses_is_taken_as_the_worst(client: redis.Redis, status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, text="p26_heat_value 0.0\n", headers={"location": HEAT_URL})

    assert read_heat(client, answer) == Input(1.0, "missing")


def test_a_heat_page_too_slow_is_taken_as_the_worst(client: redis.Redis) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow", request=request)

    assert read_heat(client, answer) == Input(1.0, "missing")


class Dripping(httpx.SyncByteStream):
    """A page that comes byte by byte and never ends; each byte takes the clock a second on."""

    def __init__(self, clock: list[float], part: bytes) -> None:
        self.clock, self.part = clock, part
        self.sent = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.clock[0] += 1.0
            self.sent += 1
            yield self.part


@pytest.mark.parametrize(
    ("seconds", "part", "most"), [(1.0, b"p26_heat_value 0.1\n", 3), (0.0, b"x" * 2**20, 5)]
)
def test_a_heat_page_that_never_ends_is_taken_as_the_worst(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, seconds: float, part: bytes, most: int
) -> None:
    clock = [0.0]
    monkeypatch.setattr("riskhub.governor.inputs.time.monotonic", lambda: clock[0] * seconds)
    page = Dripping(clock, part)

    assert read_heat(client, lambda _: httpx.Response(200, stream=page)) == Input(1.0, "missing")
    assert page.sent <= most


def test_a_heat_page_whose_headers_never_end_holds_nothing_up(client: redis.Redis) -> None:
    enough = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        enough.wait()
        raise httpx.ReadTimeout("too slow", request=request)

    settings = GovernorSettings(heat_url=HEAT_URL, heat_timeout_sec=0.05)
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        assert read(client, settings, http).heat == Input(1.0, "missing")
        enough.set()


def test_a_heat_url_that_is_none_is_taken_as_the_worst(client: redis.Redis) -> None:
    settings = GovernorSettings(heat_url="http://heat.example:99999999/metrics")
    assert read(client, settings).heat == Input(1.0, "missing")


def test_a_heat_page_that_is_no_text_is_taken_as_the_worst(client: redis.Redis) -> None:
    answer = httpx.Response(200, content=b"p26_heat_value 0.1 \xff\n")
    assert read_heat(client, lambda _: answer) == Input(1.0, "missing")


def test_a_heat_page_out_of_reach_is_taken_as_the_worst(
    client: redis.Redis, free_port: Callable[[], int]
) -> None:
    settings = GovernorSettings(heat_url=f"http://127.0.0.1:{free_port()}/metrics")

    inputs = read(client, settings)

    assert inputs.heat == Input(1.0, "missing")
