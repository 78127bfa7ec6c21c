from __future__ import annotations

import socket

import pytest

from streamstack.connections.http import NetworkGuard, RefusedAddressError
from streamstack.errors import RunError
from streamstack.language.settings import HttpSettings


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "100.100.100.200",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "64:ff9b:1::a9fe:a9fe",
        "::ffff:0:169.254.169.254",
        "2001:0:a9fe:a9fe::1",
        "fd00:ec2::23",
        "fd20:ce::254",
    ],
)
def test_metadata_is_out_of_reach_but_in_development(address: str) -> None:
    """Where clouds keep a machine's credentials, no definition gets without being told to."""
    assert not NetworkGuard(HttpSettings()).admits(address)
    assert NetworkGuard(HttpSettings(), dev=True).admits(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "fc00::1",
        "fd12:3456::1",
        "fec0::1",
        "ff02::1",
        "2001::1",
        "not an address",
    ],
)
def test_private_networks_are_out_of_reach_when_denied(address: str) -> None:
    """In every spelling that leads there, and in development too."""
    assert not NetworkGuard(HttpSettings(deny_private_networks=True)).admits(address)
    assert not NetworkGuard(HttpSettings(deny_private_networks=True), dev=True).admits(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:4700::1", "172.32.0.1"])
def test_public_network_is_in_reach(address: str) -> None:
    """Whatever is denied, the public network is not."""
    assert NetworkGuard(HttpSettings(deny_private_networks=True)).admits(address)


def test_private_networks_are_in_reach_by_default() -> None:
    """Many a project calls its neighbours."""
    guard = NetworkGuard(HttpSettings())
    assert guard.admits("127.0.0.1")
    assert guard.admits("10.0.0.1")


def test_network_that_is_named_is_in_reach() -> None:
    """An address or a network among the hosts is meant."""
    guard = NetworkGuard(HttpSettings(allow_hosts=("10.1.0.0/16", "fd00:ec2::254"), deny_private_networks=True))
    assert guard.admits("10.1.2.3")
    assert guard.admits("fd00:ec2::254")
    assert not guard.admits("10.2.0.1")


def test_socket_is_made_for_allowed_addresses_only() -> None:
    """The last gate is the socket itself."""
    guard = NetworkGuard(HttpSettings(deny_private_networks=True))
    tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    with pytest.raises(RefusedAddressError):
        guard.make_socket((*tcp, ("127.0.0.1", 80)))
    guard.trusted.add(("127.0.0.1", 80))
    for address in ("127.0.0.1", "8.8.8.8"):
        guard.make_socket((*tcp, (address, 80))).close()


@pytest.mark.parametrize(
    ("host", "port", "allowed"),
    [
        ("api.example.org", 443, True),
        ("API.Example.org.", 443, True),
        ("api.example.org", 8443, True),
        ("evil-api.example.org", 443, False),
        ("example.org", 443, False),
        ("a.b.example.com", 443, True),
        ("example.com", 443, False),
        ("badexample.com", 443, False),
        ("only.example.net", 8443, True),
        ("only.example.net", 443, False),
        ("10.0.0.7", 80, True),
        ("10.0.1.7", 80, False),
        ("::1", 80, True),
    ],
)
def test_hosts_are_allowed_by_name(host: str, port: int, allowed: bool) -> None:  # noqa: FBT001
    """Exact names, everything below a name, one port only, addresses."""
    guard = NetworkGuard(
        HttpSettings(allow_hosts=("api.example.org", "*.example.com", "only.example.net:8443", "10.0.0.0/24", "::1"))
    )
    if allowed:
        guard.check_host(host, port)
        return
    with pytest.raises(RunError, match="not allowed") as caught:
        guard.check_host(host, port)
    assert caught.value.code == "http-connection"
    assert caught.value.final


def test_empty_list_allows_nothing() -> None:
    """A list without hosts is not the same as no list."""
    with pytest.raises(RunError):
        NetworkGuard(HttpSettings(allow_hosts=())).check_host("example.org", 443)
