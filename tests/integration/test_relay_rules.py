"""The relay asks the same rules: who may connect, and which device a client may have through it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

import pytest

from tests.fakes.raw_client import RawClient
from tests.waiting import wait_until
from usbip_capture.cli import exits
from usbip_capture.cli.main import main
from usbip_capture.demo.device import INFO, DemoDevice
from usbip_capture.relay.relay import Relay
from usbip_capture.relay.ruling import relay_rules
from usbip_capture.server import Server
from usbip_capture.servers.address import ServerAddress

READ = "8006000100001200"
Make = Callable[..., Relay]


@pytest.fixture
def relay() -> Iterator[Make]:
    """A relay with such rules to a server that has 1-1 and 1-2."""
    with ExitStack() as stack:
        server = Server()
        stack.callback(server.close)
        for busid, product in (("1-1", 1), ("1-2", 2)):
            info = replace(INFO, busid=busid, idProduct=product)
            server.add(info, partial(DemoDevice, info))
        there = ServerAddress(*server.listen("127.0.0.1", 0))

        def make(**rules: list[str]) -> Relay:
            return stack.enter_context(closing(Relay(there, port=0, rules=relay_rules(**rules))))

        yield make


@pytest.mark.parametrize("denied", ["127.0.0.1 1-1", "any 1209:0001", "127.0.0.0/8 1-3, local 1-1"])
def test_a_device_that_a_client_may_not_have_is_taken_from_it(denied: str, relay: Make) -> None:
    made = relay(allow=["192.0.2.0/24"], deny=[denied])
    with RawClient(("127.0.0.1", made.port), "1-2") as other:
        try:
            with RawClient(("127.0.0.1", made.port), "1-1") as client:
                assert client.is_at_end()
        except ConnectionError:  # it ended before the answer was read
            pass
        wait_until("it is counted", lambda: made.turned_away)
        assert made.turned_away == 1
        assert other.ask(READ).status == 0
        assert [one.imported.busid for one in made.clients if one.imported] == ["1-2"]


def test_a_client_that_may_have_no_device_cannot_connect(relay: Make) -> None:
    made = relay(deny=["local"])
    # The reset may come before the client is done with connecting.
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", made.port), 20) as sock:
        sock.recv(1)
    assert made.turned_away == 1
    assert not made.clients


def test_where_it_matters_which_device_it_is_a_client_that_cannot_be_observed_is_broken_off(
    relay: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rules, ends in (({"deny": ["local 1-3"]}, True), ({"allow": ["192.0.2.0/24"]}, False)):
        made = relay(**rules)
        with socket.create_connection(("127.0.0.1", made.port), 20) as sock:
            wait_until("it is there", lambda made=made: made.clients)  # type: ignore[misc]
            observation = made.clients[0]
            made._calls.wait(partial(observation.give_up, 0))
            if ends:
                with pytest.raises(ConnectionResetError):
                    sock.recv(1)
            else:
                assert made.clients == [observation]


@pytest.mark.parametrize("option", ["--allow=here", "--deny=192.0.2.0/33", "--deny=any class:03"])
def test_what_cannot_be_decided_is_one_sentence(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["relay", "demo", "--listen", "127.0.0.1:0", option]) == exits.USAGE
    assert capsys.readouterr().err.count("\n") == 1
