"""The function that sends mail."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.utils import format_datetime
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from streamstack import clock
from streamstack.errors import RunError
from streamstack.language.definition import Choice, Effects, Example, Parameter, function
from streamstack.language.kinds import Kind
from streamstack.language.mail import Address, is_line, parse_address
from streamstack.language.values import kind, to_json, to_text
from streamstack.runtime.run import Context, Run
from streamstack.runtime.values import File
from streamstack.spec import Bound

if TYPE_CHECKING:
    from streamstack.connections.mail import Delivery, Envelope, Mailer


def open_mailer(context: Context) -> Mailer:
    """Make what delivers the mail of a process; `run.context.resource(open_mailer)` returns it."""
    # Few projects send mail: the others do without its library.
    from streamstack.connections.mail import FileMailer, SmtpMailer  # noqa: PLC0415

    settings = context.email
    if settings.server is not None and settings.server.host:
        return SmtpMailer(settings, settings.server)
    if context.dev or settings.server is not None:
        return FileMailer(settings, context.folder / "mail")
    raise RunError("template", "`email.send` needs `email: {url: ...}` in streamstack.yaml", final=True)


#: Fields that the parameters and the message itself set; another one of the same name would contradict them.
_OWN_FIELDS: Final = frozenset(
    "from to cc bcc subject reply-to sender date message-id mime-version return-path received".split()  # noqa: SIM905
)
_FIELD: Final = re.compile(r"[!-9;-~]+")
_MEDIA: Final = re.compile(r"([\w.+-]+)/([\w.+-]+)", re.ASCII)
_KEYS: Final = frozenset({"content", "filename", "contentType"})
#: Bytes of the longest line of a header that is allowed (RFC 5322, 2.1.1), with room for its name.
_LONGEST_FIELD: Final = 900
_ONE_ADDRESS: Final = "an address, such as `Ada <ada@example.org>`, or {name, address}"


def _no_address(value: Any) -> tuple[str, str] | None:
    """Return the problem with a constant for addresses, if there is one."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            try:
                parse_address(each)
            except ValueError:
                return (
                    "an address",
                    "write it like ada@example.org or Ada Lovelace <ada@example.org>, several as a list",
                )
    return None


_ADDRESSES: Final = Bound(refuses=_no_address)
_REFUSED: Final = "[{address: text, code: integer, message: text}]"


@function(
    "email.send",
    Parameter(
        "to",
        _ADDRESSES,
        "Recipients: an address such as `ada@example.org` or `Ada Lovelace <ada@example.org>`, {name, address}, or a "
        "list of them. Each text is one address: a comma does not separate several.",
        required=True,
    ),
    Parameter("cc", _ADDRESSES, "Further recipients, visible to all."),
    Parameter("bcc", _ADDRESSES, "Further recipients, invisible to the others."),
    Parameter("replyTo", _ADDRESSES, "Where replies go."),
    Parameter("from", Bound(refuses=_no_address), "Sender. Default: `email.from` of the settings."),
    Parameter("subject", Bound(Kind.PROSE), "Subject, in one line.", required=True),
    Parameter("text", Bound(Kind.PROSE), "Body as plain text."),
    Parameter("html", Bound(Kind.TEXT), "Body as HTML. With `text`, mail programs show the one that they can."),
    Parameter(
        "attachments",
        Bound(Kind.LIST),
        "Attachments: files, or {content, filename, contentType} with a text, bytes or a file as `content`.",
    ),
    Parameter("headers", Bound(Kind.OBJECT), "Further header fields, such as `List-Unsubscribe`. Null omits one."),
    choices=[Choice(("text", "html"), several=True)],
    effects=Effects(gives="value", result=f"{{id: text, accepted: [text], refused: {_REFUSED}}}"),
    examples=[
        Example(
            "send a message",
            "- email.send:\n    to: Ada Lovelace <ada@example.org>\n    from: Shop <shop@example.org>\n"
            "    subject: Your order\n    text: It is on its way.\n  as: mail\n- return: << mail.accepted >>",
            result=["ada@example.org"],
        ),
        Example(
            "HTML with a text for other programs, and an attachment",
            "- email.send:\n    to: [ada@example.org, grace@example.org]\n    from: reports@example.org\n"
            "    subject: Report\n    text: The report is attached.\n    html: <p>The report is <b>attached</b>.</p>\n"
            "    attachments: [{content: 'a,b', filename: report.csv, contentType: text/csv}]\n  as: mail\n"
            "- return: << mail.accepted | length >>",
            result=2,
        ),
        Example(
            "a line break in a header",
            '- email.send: {to: ada@example.org, from: a@example.org, subject: "Hi\\nBcc: eve@example.org", text: Hi}',
            fails="template",
        ),
    ],
)
async def email_send(  # noqa: PLR0913  (a message has that many parts)
    run: Run,
    *,
    to: Any,
    subject: str,
    text: Any = None,
    html: str | None = None,
    from_: Any = None,
    cc: Any = None,
    bcc: Any = None,
    reply_to: Any = None,
    attachments: list[Any] | None = None,
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Send a message to all of its recipients.

    The result is {id, accepted, refused}: the `Message-ID`, the addresses that the mail server accepted, and those
    that it rejected, each with the {address, code, message} of its reply. If it rejects all of them, or the message,
    the step fails with `email-refused`. All recipients get the same message and see each other in `to` and `cc`; for
    a message of its own for each of them, write a loop, or use `bcc`.

    A line break or another control character in an address, a name, the subject or a header fails with `invalid-input`
    (400) if the value comes from the client, otherwise with `template` (500); it never adds a header or a recipient.

    `retry` sends again after `email-connection`, `timeout` and temporary replies (4xx) of the server. If the
    connection is lost, or the step is stopped by its `timeout`, while the server takes the message, it may have been
    sent: the step fails with `email-unconfirmed`, which `retry` does not repeat.

    With `serve --dev` and without `email.url` in the settings, messages are written to `.streamstack/mail/`. In tests
    no message is sent: `expect` has `mails`.
    """
    mailer = run.context.resource(open_mailer)
    fields = {"to": _addresses(to, "to"), "cc": _addresses(cc, "cc"), "bcc": _addresses(bcc, "bcc")}
    recipients = [each for listed in fields.values() for each in listed]
    if not recipients:
        raise RunError("template", "`to` holds no address", final=True, parameter="to")
    sender = _one(from_, "from") if from_ is not None else mailer.settings.sender
    if sender is None:
        raise RunError(
            "template", "`from` is missing: write it, or `email: {from: ...}` in streamstack.yaml", final=True
        )
    replies = _addresses(reply_to, "replyTo")
    utf8 = any(each.needs_utf8 for each in (sender, *recipients, *replies))
    parts = [await _part(each, mailer.settings.max_size) for each in attachments or ()]
    size = sum(len(each.content) for each in parts) * 4 // 3 + len(f"{text}{html}")
    mail = EmailMessage((policy.SMTPUTF8 if utf8 else policy.SMTP).clone(cte_type="7bit"))
    identifier = f"{token_hex(16)}@{sender.domain}"
    mail["From"], mail["To"] = _written([sender]), _written(fields["to"])
    for name, listed in (("Cc", fields["cc"]), ("Reply-To", replies)):
        if listed:
            mail[name] = _written(listed)
    mail["Subject"] = _line(subject, "subject")
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = f"<{identifier}>"
    for name, value in (headers or {}).items():
        _add_field(mail, name, value)
    if text is not None or html is None:
        mail.set_content(_readable(to_text(text)))
    if html is not None:
        (mail.set_content if text is None else mail.add_alternative)(_readable(html), subtype="html")
    for part in parts:
        part.attach(mail)
    if size > mailer.settings.max_size or len(content := mail.as_bytes()) > mailer.settings.max_size:
        raise _too_large(mailer.settings.max_size)
    from streamstack.connections.mail import Envelope  # noqa: PLC0415

    addresses = tuple(dict.fromkeys(map(str, recipients)))
    envelope = Envelope(identifier, str(sender), addresses, content, utf8)
    about = (str(sender), addresses, subject, text, html, [(each.name, len(each.content)) for each in parts])
    delivery = await _deliver(run, mailer, envelope, hashlib.sha256(to_json(about)).digest())
    return {"id": identifier, **delivery.shown()}


async def _deliver(run: Run, mailer: Mailer, envelope: Envelope, digest: bytes) -> Delivery:
    """Deliver a message, unless an attempt was stopped while the server took it: it may have been sent then."""
    stopped: set[bytes] = run.state.setdefault("email.stopped", set())
    if digest in stopped:
        message = "the step was stopped while the mail server took the message, which may have been sent"
        raise RunError("email-unconfirmed", message, final=True)
    began: list[bytes] = []
    try:
        return await mailer.deliver(envelope, lambda: began.append(digest))
    except asyncio.CancelledError:
        stopped.update(began)
        raise


def _fault(name: str, wanted: str) -> RunError:
    return RunError("template", f"`{name}` must be {wanted}", final=True, parameter=name)


def _one(value: Any, name: str) -> Address:
    """Return an address. The error does not hold the value, which may be anybody's."""
    display = None
    if isinstance(value, Mapping) and {"address"} <= set(value) <= {"name", "address"}:
        value, display = value["address"], value.get("name")
    if not isinstance(value, str):
        raise _fault(name, f"{_ONE_ADDRESS}, not {kind(value)}")
    try:
        found = parse_address(value)
    except ValueError as error:
        raise RunError("template", f"`{name}` {error}", final=True, parameter=name) from error
    return found if display is None else Address(found.local, found.domain, _line(to_text(display), name))


def _addresses(value: Any, name: str) -> list[Address]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [_one(each, name) for each in listed if each is not None]


def _written(addresses: Iterable[Address]) -> tuple[HeaderAddress, ...]:
    return tuple(HeaderAddress(_readable(each.name), each.local, each.domain) for each in addresses)


def _readable(text: str) -> str:
    """Return a text without lone surrogates, which no charset can write."""
    return text.encode("utf-8", "replace").decode()


def _line(text: Any, name: str) -> str:
    line = _readable(to_text(text))
    if not is_line(line):
        raise _fault(name, "one line without control characters")
    return line


def _add_field(message: EmailMessage, name: str, value: Any) -> None:
    if not _FIELD.fullmatch(name) or name.lower() in _OWN_FIELDS or name.lower().startswith("content-"):
        message_ = f"`{_readable(name[:40])}` can't be among `headers`: it is not a valid name, or a parameter sets it"
        raise RunError("template", message_, final=True, parameter="headers")
    if value is None:
        return
    line = _line(value, "headers")
    if len(line) > _LONGEST_FIELD:
        raise _fault("headers", f"an object of texts with at most {_LONGEST_FIELD} characters")
    message[name] = line


def _too_large(limit: int) -> RunError:
    message = f"the message is larger than {limit} bytes: send a link, or raise `email.maxSize`"
    return RunError("template", message, final=True, parameter="attachments")


@dataclass(frozen=True, slots=True)
class _Attachment:
    content: bytes
    name: str
    media: tuple[str, str]
    is_text: bool

    def attach(self, message: EmailMessage) -> None:
        parameters = {"charset": "utf-8"} if self.is_text else None
        main, sub = self.media
        message.add_attachment(self.content, maintype=main, subtype=sub, filename=self.name, params=parameters)


async def _part(value: Any, limit: int) -> _Attachment:
    content, filename, media = value, None, None
    if isinstance(value, Mapping) and "content" in value and set(value) <= _KEYS:
        content, filename, media = (value.get(key) for key in ("content", "filename", "contentType"))
    if isinstance(content, File):
        if content.size > limit:
            raise _too_large(limit)
        filename, media = filename or content.name, media or content.content_type
        data = await content.read()
    elif isinstance(content, str):
        data, media = _readable(content).encode(), media or "text/plain"
    elif isinstance(content, bytes):
        data = content
    else:
        raise _fault(
            "attachments", "a list of files and of {content, filename, contentType} with a text, bytes or file"
        )
    name = _line(filename or "attachment", "attachments").replace("/", "_").replace("\\", "_")
    found = _MEDIA.fullmatch(to_text(media or "").partition(";")[0].strip())
    # A message or a multipart has parts of its own, which the bytes may not have.
    whole = found is None or found[1].lower() in ("multipart", "message")
    kinds = ("application", "octet-stream") if whole or found is None else (found[1], found[2])
    return _Attachment(data, name, kinds, isinstance(content, str) and kinds[0] == "text")


FUNCTIONS = (email_send,)
