"""HTTP through proxies, and over TLS."""

from __future__ import annotations

import base64
import ssl

import pytest
import trustme

from callmeter.transports.protocol import Outcome
from support.serving import reply, sealed, taken, url


class TestProxies:
    def test_http_goes_through_with_its_whole_url(self, serve, sending) -> None:
        proxy = serve(taken)
        environ = {"HTTP_PROXY": f"http://me:s%3Acret@127.0.0.1:{proxy.port}", "NO_PROXY": "other"}
        s = sending("http://collector.example:4248/base", environ=environ)
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.DELIVERED)]
        request = proxy.requests[0]
        assert request.line == ("POST http://collector.example:4248/base/v1/envelopes HTTP/1.1")
        assert request.headers["host"] == "collector.example:4248"
        basic = base64.b64encode(b"me:s:cret").decode()
        assert request.headers["proxy-authorization"] == f"Basic {basic}"

    def test_https_tunnels(self, serve, sending) -> None:
        proxy = serve(lambda _: reply(407, {}))
        environ = {"https_proxy": f"127.0.0.1:{proxy.port}"}
        s = sending("https://collector.example", environ=environ, api_key="sesame-1")
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.RETRY)]
        assert proxy.requests[0].line.startswith("CONNECT collector.example:443 ")
        assert "authorization" not in proxy.requests[0].headers
        assert "407" in (s.reports[0].error or "")

    @pytest.mark.parametrize("bypass", ["*", "127.0.0.1", "example, .0.0.1", "127.0.0.1:{port}"])
    def test_loopback_and_no_proxy_go_direct(self, serve, sending, bypass: str) -> None:
        server, proxy = serve(taken), serve(lambda _: reply(502, {}))
        environ = {
            "HTTP_PROXY": f"http://127.0.0.1:{proxy.port}",
            "NO_PROXY": bypass.format(port=server.port),
        }
        s = sending(url(server), environ=environ)
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.DELIVERED)]
        assert proxy.requests == []

    def test_a_web_server_s_proxy_header_is_not_believed(self, sending) -> None:
        environ = {"HTTP_PROXY": "http://evil.example:1", "REQUEST_METHOD": "GET"}
        connection = sending("http://collector.example", environ=environ).transport._connection
        assert connection._proxy is None


class TestTls:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    def context(self, authority: trustme.CA, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    def test_a_certificate_of_the_given_authority(
        self, serve, sending, authority, tmp_path
    ) -> None:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        server = serve(taken, tls=self.context(authority, "localhost"))
        s = sending(f"https://localhost:{server.port}", ca_file=str(tmp_path / "ca.pem"))
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.DELIVERED)]

    @pytest.mark.parametrize("wrong", ["authority", "name"])
    def test_an_unknown_authority_or_another_name_is_refused(
        self, serve, sending, authority, tmp_path, wrong: str
    ) -> None:
        name = "another.example" if wrong == "name" else "localhost"
        trusted = trustme.CA() if wrong == "authority" else authority
        trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        server = serve(taken, tls=self.context(authority, name))
        s = sending(f"https://localhost:{server.port}", ca_file=str(tmp_path / "ca.pem"))
        s.send(sealed(0))
        assert s.wait(1) == [(0, Outcome.RETRY)]
        assert "not trusted" in (s.reports[0].error or "")
        assert server.requests == []
