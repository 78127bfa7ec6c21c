"""`email.send` against a mail server: aiosmtpd, on a socket of this machine."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from streamstack.functions import REGISTRY
from streamstack.language.mail import EmailSettings
from streamstack.language.project import read_project
from streamstack.language.settings import load_settings
from streamstack.server.endpoints import UnservableError
from streamstack.server.reloading import first_edition
from tests.certificates import certified
from tests.stacks import Outcome, run_stack


@dataclass
class Post:
    """What a server received, and how it answers: replies by recipient, and a reply to the content."""

    port: int = 0
    envelopes: list[Envelope] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)
    data: Callable[[int], Any] | None = None  # by the number of the message: a reply, or what it waits for
    taken: int = 0
    transports: list[Any] = field(default_factory=list)

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]) -> str:  # noqa: N802
        if address in self.replies:
            return self.replies[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.taken += 1
        reply = self.data(self.taken) if self.data is not None else None
        if reply == "lost":
            self.transports[-1].abort()
            return "250 OK"
        if reply == "silent":
            await asyncio.sleep(5)
        if isinstance(reply, str) and reply[0].isdigit():
            return reply
        self.envelopes.append(envelope)
        self.sessions.append(session)
        return "250 OK"

    @property
    def messages(self) -> list[Any]:
        return [
            message_from_bytes(bytes(each.original_content or b""), policy=policy.default) for each in self.envelopes
        ]


class Watched(SMTP):
    """A connection that is closed when the test is over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.event_handler.transports.append(transport)


@asynccontextmanager
async def server(post: Post, **options: Any) -> AsyncIterator[Post]:
    """Serve as long as the block lasts; ``tls`` is a context for TLS from the first byte."""
    tls = options.pop("tls", None)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: Watched(post, enable_SMTPUTF8=True, loop=loop, **options), "127.0.0.1", 0, ssl=tls
    )
    post.port = listening.sockets[0].getsockname()[1]
    try:
        yield post
    finally:
        listening.close()
        for each in post.transports:
            each.abort()
        await asyncio.sleep(0.01)


def settings(post: Post, user: str = "", scheme: str = "smtp", **others: Any) -> EmailSettings:
    """Return settings as a project writes them, with some changed."""
    text = f"email: {{url: '{scheme}://{user}127.0.0.1:{post.port}', from: Shop <shop@example.org>}}\n"
    found, findings = load_settings(text, "streamstack.yaml", {})
    assert not [each for each in findings if each.severity == "error" and not user]
    return replace(found.email, **others)


async def send(post: Post, step: str, inputs: dict[str, Any] | None = None, **others: Any) -> Outcome:
    """Run a step that sends to a server, with some settings changed."""
    stack = f"- email.send: {{{step}}}\n  as: mail\n- return: << mail >>"
    return await run_stack(stack, inputs, email=settings(post, **others))


HELLO = "to: ada@example.org, subject: Hi, text: Hello"


async def test_a_message_is_what_its_author_wrote() -> None:
    """Names, subjects, bodies and attachments of any language arrive as they were written, and bcc is not shown."""
    step = (
        "to: ['Zoë, Ltd <zoe@exämple.org>', {address: bob@example.org, name: 'Bob \"B\"'}], cc: c@example.org, "
        "bcc: [d@example.org, c@example.org], replyTo: help@example.org, subject: Grüße 🎉 " + "lang " * 30 + ", "
        'text: "Zeile\\n.\\n.x ü", html: <p>ü</p>, headers: {List-Unsubscribe: <https://example.org/u>, X-No: null}, '
        "attachments: [{content: 'a;ü', filename: 'Übersicht.csv', contentType: text/csv}, "
        "{content: << 'AAEC' | unbase64 >>, filename: ../x.bin, contentType: application/octet-stream}]"
    )
    async with server(Post()) as post:
        outcome = await send(post, step)
    assert outcome.error is None, outcome.error
    (envelope,), (message,) = post.envelopes, post.messages
    assert envelope.mail_from == "shop@example.org"
    assert envelope.rcpt_tos == ["zoe@xn--exmple-cua.org", "bob@example.org", "c@example.org", "d@example.org"]
    assert outcome.result["accepted"] == envelope.rcpt_tos
    assert outcome.result["refused"] == []
    assert message["Message-ID"] == f"<{outcome.result['id']}>"
    assert [(each.display_name, each.addr_spec) for each in message["To"].addresses] == [
        ("Zoë, Ltd", "zoe@xn--exmple-cua.org"),
        ('Bob "B"', "bob@example.org"),
    ]
    assert (message["Bcc"], message["X-No"]) == (None, None)
    assert (str(message["Reply-To"]), message["List-Unsubscribe"]) == ("help@example.org", "<https://example.org/u>")
    assert message["Subject"] == "Grüße 🎉 " + ("lang " * 30).strip()
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert plain.get_content().splitlines() == ["Zeile", ".", ".x ü"]
    assert html is not None
    assert html.get_content().strip() == "<p>ü</p>"
    parts = [(each.get_filename(), each.get_content_type(), each.get_content()) for each in message.iter_attachments()]
    assert parts == [("Übersicht.csv", "text/csv", "a;ü"), (".._x.bin", "application/octet-stream", b"\x00\x01\x02")]
    assert isinstance(envelope.content, bytes)
    assert envelope.content.isascii()
    assert max(map(len, envelope.content.split(b"\r\n"))) <= 998


@pytest.mark.parametrize(
    ("replies", "accepted", "error"),
    [
        ({"a@example.org": "550 5.1.1 no such user"}, ["b@example.org"], None),
        (dict.fromkeys(("a@example.org", "b@example.org"), "550 no"), [], ("email-refused", True)),
        (dict.fromkeys(("a@example.org", "b@example.org"), "450 later"), [], ("email-refused", False)),
    ],
)
async def test_refused_recipients_are_reported(
    replies: dict[str, str], accepted: list[str], error: tuple[str, bool] | None
) -> None:
    """Some refused recipients are in the result; if all are refused, the step fails, for good or not."""
    async with server(Post(replies=replies)) as post:
        outcome = await send(post, "to: [a@example.org, b@example.org], subject: Hi, text: Hello")
    if error is not None:
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.final) == error
        assert [each["address"] for each in outcome.error.details["refused"]] == ["a@example.org", "b@example.org"]
        return
    assert outcome.result["accepted"] == accepted
    assert outcome.result["refused"] == [{"address": "a@example.org", "code": 550, "message": "5.1.1 no such user"}]


@pytest.mark.parametrize(
    ("data", "code", "attempts"),
    [
        (lambda number: "451 busy" if number < 3 else None, None, 3),  # surely not sent: tried again
        (lambda _: "554 spam", "email-refused", 1),
        (lambda _: "lost", "email-unconfirmed", 1),  # may have been sent: never again in silence
        (lambda _: "silent", "email-unconfirmed", 1),
    ],
)
async def test_retry_never_sends_twice(data: Callable[[int], Any], code: str | None, attempts: int) -> None:
    """`retry` repeats what was surely not sent, and nothing else."""
    stack = f"- email.send: {{{HELLO}}}\n  retry: {{times: 4, delay: 1ms}}"
    async with server(Post(data=data)) as post:
        outcome = await run_stack(stack, email=settings(post, timeout=0.2))
    assert (outcome.error.code if outcome.error else None) == code
    assert post.taken == attempts


async def test_a_step_that_its_timeout_stops_is_not_sent_again() -> None:
    """The `timeout` of a step may end it while the server takes the message: a retry then fails."""
    stack = f"- email.send: {{{HELLO}}}\n  timeout: 100ms\n  retry: {{times: 3, delay: 1ms}}"
    async with server(Post(data=lambda _: "silent")) as post:
        outcome = await run_stack(stack, email=settings(post))
    assert outcome.error is not None
    assert (outcome.error.code, post.taken) == ("email-unconfirmed", 1)


async def test_an_unreachable_server_is_tried_again() -> None:
    """A connection that fails is `email-connection`, which `retry` repeats; nothing was sent."""
    outcome = await send(Post(port=1), HELLO)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.status, outcome.error.final) == ("email-connection", 502, False)
    async with server(Post()) as post:
        silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        post.port = silent.sockets[0].getsockname()[1]
        outcome = await send(post, HELLO, timeout=0.1)
        silent.close()
    assert outcome.error is not None
    assert outcome.error.code == "timeout"


def _authenticate(_: Any, __: Any, ___: Any, mechanism: str, data: LoginPassword) -> AuthResult:
    return AuthResult(success=data == LoginPassword(b"ada", b"s3:cret"), handled=False)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd, of smtps
@pytest.mark.parametrize(
    ("scheme", "user", "start_tls", "code"),
    [
        ("smtps", "ada:s3%3Acret@", "auto", None),
        ("smtp", "ada:s3%3Acret@", "required", None),
        ("smtp", "ada:s3%3Acret@", "auto", None),
        ("smtp", "ada:wrong@", "auto", "email-connection"),
        ("smtp", "", "auto", "email-refused"),  # it requires authentication
        ("smtp", "", "off", "email-refused"),
    ],
)
async def test_tls_and_authentication(
    scheme: str, user: str, start_tls: str, code: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS, STARTTLS and AUTH are used as the settings say; the certificate is verified; no error shows the password."""
    certificate, key = certified(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    options: dict[str, Any] = {"auth_required": True, "authenticator": _authenticate}
    options |= {"tls": tls, "auth_require_tls": False} if scheme == "smtps" else {"tls_context": tls}
    async with server(Post(), **options) as post:
        outcome = await send(post, HELLO, scheme=scheme, user=user, start_tls=start_tls)
        if code is None:
            assert outcome.error is None, outcome.error
            assert len(post.envelopes) == 1
            monkeypatch.delenv("SSL_CERT_FILE")
            outcome = await send(post, HELLO, scheme=scheme, user=user, start_tls=start_tls)
            code = "email-connection"  # the certificate is not trusted now
        assert outcome.error is not None
        assert outcome.error.code == code
        assert "cret" not in outcome.error.full
        assert "wrong" not in outcome.error.full


async def test_required_tls_is_not_left_out() -> None:
    """With `startTls: required`, nothing is sent to a server without TLS."""
    async with server(Post()) as post:
        outcome = await send(post, HELLO, start_tls="required")
    assert outcome.error is not None
    assert (outcome.error.code, post.envelopes) == ("email-connection", [])


@pytest.mark.parametrize(
    "step",
    [
        "to: << input.bad >>, subject: Hi, text: Hello",
        "to: ada@example.org, cc: [<< input.bad >>], subject: Hi, text: Hello",
        "to: {address: ada@example.org, name: << input.bad >>}, subject: Hi, text: Hello",
        "to: ada@example.org, subject: << input.bad >>, text: Hello",
        "to: ada@example.org, replyTo: << input.bad >>, subject: Hi, text: Hello",
        "to: ada@example.org, subject: Hi, text: Hello, headers: {X-A: << input.bad >>}",
        "to: ada@example.org, subject: Hi, text: Hello, attachments: [{content: a, filename: << input.bad >>}]",
    ],
)
@pytest.mark.parametrize(
    "bad", ["Eve\r\nBcc: eve@example.org", "Eve\nX: y", "Eve\x00", "a\u2028b", "Eve <a@b.org>\r\n <e@example.org>"]
)
async def test_what_clients_send_adds_no_header(step: str, bad: str) -> None:
    """A line break in what a client sent is refused as the client's fault, before anything is sent."""
    async with server(Post()) as post:
        outcome = await send(post, step, {"bad": bad})
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.status) in {("invalid-input", 400), ("template", 500)}
    chosen = "[" in step or "{address" in step or "{X-A" in step  # it is inside of a value
    assert chosen or outcome.error.status == 400
    assert (post.envelopes, outcome.error.final) == ([], True)


@pytest.mark.parametrize(
    "address",
    ["ada@example.org, eve@example.org", "ada", "@example.org", "a b@example.org", "<ada@example.org", "a@b@c.org", ""],
)
async def test_one_text_is_one_address(address: str) -> None:
    """A client's text can't hold a second recipient, and what is not an address is refused."""
    async with server(Post()) as post:
        outcome = await send(post, "to: << input.to >>, subject: Hi, text: Hello", {"to": address})
    assert outcome.error is not None
    assert (outcome.error.status, post.envelopes) == (400, [])


async def test_non_ascii_mailboxes_need_smtputf8() -> None:
    """An address such as zoë@example.org is sent with SMTPUTF8; a server without it refuses."""
    async with server(Post()) as post:
        outcome = await send(post, "to: Zoë <zoë@example.org>, subject: Hi, text: Hello")
        assert outcome.error is None, outcome.error
        assert post.envelopes[0].smtp_utf8
        assert "To: Zoë <zoë@example.org>".encode() in (post.envelopes[0].original_content or b"")


async def test_a_message_has_a_largest_size() -> None:
    """The limits of the settings and of the server are kept before the message is sent."""
    step = "to: ada@example.org, subject: Hi, text: << range(5000) | join >>"
    async with server(Post(), data_size_limit=1000) as post:
        outcome = await send(post, step)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.final, post.taken) == ("email-refused", True, 0)
        outcome = await send(post, step, max_size=1000)
    assert outcome.error is not None
    assert (outcome.error.code, post.taken) == ("template", 0)


async def test_connections_are_reused_and_limited() -> None:
    """Many messages at once share a few connections; one that the server has closed is replaced."""
    stack = (
        "- streams.map:\n    in: << range(12) | list >>\n    concurrency: 6\n    do:\n"
        f"      - email.send: {{{HELLO}}}\n        as: mail\n      - return: << mail.id >>\n  as: ids\n"
        "- collect: << ids >>\n  as: all\n- return: << all | unique | length >>"
    )
    async with server(Post()) as post:
        outcome = await run_stack(stack, email=settings(post, pool_size=2))
        assert outcome.error is None, outcome.error
    assert outcome.result == 12
    assert len({id(each) for each in post.sessions}) <= 2


async def test_a_developer_without_a_server_gets_files(tmp_path: Path) -> None:
    """With `--dev` and without `email.url`, messages are files that mail programs open."""
    outcome = await run_stack(f"- email.send: {{{HELLO}, from: a@example.org}}\n  as: mail", folder=tmp_path)
    assert outcome.error is None, outcome.error
    (file,) = (tmp_path / "mail").glob("*.eml")
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert (message["To"], message["Subject"]) == ("ada@example.org", "Hi")


SENDS = """\
method: GET
path: /it
responseType: json
functionStack:
  - email.send: {to: a@b.org, subject: Hi, text: Hi}
"""


@pytest.mark.parametrize(
    ("written", "dev", "refusal"),
    [
        ("", False, "`email.send` needs a mail server in streamstack.yaml"),
        ("email: {url: << env.SMTP_URL | default('') >>}", False, "`email.send` needs a mail server"),
        ("", True, ""),
        ("email: {url: 'smtps://mail.example.org'}", False, "`email.send` has no `from`"),
        ("email: {url: 'smtps://mail.example.org', from: a@example.org}", False, ""),
        ("email: {url: 'file://', from: a@example.org}", False, ""),
    ],
)
def test_a_project_needs_a_mail_server(tmp_path: Path, written: str, dev: bool, refusal: str) -> None:  # noqa: FBT001
    """Without settings, a project that sends mail is served with `--dev` only; the error names the step."""
    (tmp_path / "api.yaml").write_text(SENDS)
    (tmp_path / "streamstack.yaml").write_text(written)
    checked = read_project(tmp_path, REGISTRY, {})
    assert checked.findings == []
    if not refusal:
        first_edition(checked, dev=dev)
        return
    with pytest.raises(UnservableError, match=re.escape(refusal)) as raised:
        first_edition(checked, dev=dev)
    assert "api.yaml:5:5" in str(raised.value)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("url: 'http://s3cret@h'", "bad-url"),
        ("url: 'smtp://a:s3cret@'", "bad-url"),
        ("url: 'smtp://a:s3cret@h:x'", "bad-url"),
        ("url: 5", "bad-url"),
        ("from: 'a@example.org, b@example.org'", "bad-setting"),
        ("startTls: maybe", "bad-setting"),
        ("timeout: soon", "bad-duration"),
        ("sender: a@example.org", "unknown-setting"),
    ],
)
def test_wrong_settings_are_findings(written: str, code: str) -> None:
    """What is wrong with `email` is found when it is read, and no finding shows a password."""
    _, findings = load_settings(f"email: {{{written}}}", "streamstack.yaml", {})
    assert code in [each.code for each in findings]
    assert "s3cret" not in " ".join(f"{each.message} {each.hint}" for each in findings)
