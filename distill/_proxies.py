"""Proxies of the environment: which addresses go through one, for every client in this process alike.

httpx, DSPy's native client and LiteLLM all read the variables of the environment, each in a way of its own. So what
divcon wants of them is written into these variables.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_HERE = ("localhost", "127.0.0.1", "::1")


def is_loopback(address: str) -> bool:
    """Whether an address leads to this machine itself."""
    host = _host(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def reach_loopback_directly(address: str = "") -> None:
    """Exempt this machine from the proxies of the environment, in `NO_PROXY`. A proxy elsewhere can't reach it.

    Args:
        address: An address that is on loopback, such as one of 127.0.0.2, is exempt too.
    """
    if not getproxies():
        return
    name = "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"
    given = os.environ.get(name, "")
    known = [host.strip() for host in given.split(",") if host.strip()]
    wanted = [*_HERE, *([_host(address)] if is_loopback(address) else [])]
    if "*" not in known and (more := [host for host in dict.fromkeys(wanted) if host not in known]):
        os.environ[name] = ",".join([*known, *more])


def unusable_proxy(address: str) -> str | None:
    """The variable that sends an address through a proxy that no client here can use; None where there is none."""
    proxies = getproxies()
    if is_loopback(address) or proxy_bypass(_host(address)):
        return None
    for name in (address.partition(":")[0].lower(), "all"):
        if proxy := proxies.get(name):
            usable = "://" not in proxy or proxy.lower().startswith(("http://", "https://"))
            return None if usable else f"{name.upper()}_PROXY"
    return None


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # such as http://[
        return ""
