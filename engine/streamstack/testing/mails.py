"""Mails of a test: caught instead of sent, and read as their recipients would read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from typing import Any, Final

from streamstack.connections.mail import Delivery, Envelope, Mailer
from streamstack.errors import RunError
from streamstack.language.mail import EmailSettings

#: How a fault of the sweep treats a mail: the server rejects it, or the connection is lost while it takes it.
REFUSED: Final = "refused"
LOST: Final = "lost"


class CaughtMails(Mailer):
    """Keeps the messages of a test in ``mails``, in the place of a mail server.

    Args:
        settings: Those of the project.
        faults: How messages are treated, by their number, counted from 1.
    """

    def __init__(self, settings: EmailSettings, faults: Mapping[int, str]) -> None:
        super().__init__(settings)
        self.mails: list[dict[str, Any]] = []
        self.attempts = 0
        self._faults = faults

    async def deliver(self, envelope: Envelope, begin: Callable[[], None]) -> Delivery:
        self.attempts += 1
        fault = self._faults.get(self.attempts)
        if fault == REFUSED:
            raise RunError("email-refused", "the mail server rejected the message: 451 try again later")
        begin()
        self.mails.append(_read(envelope))
        if fault == LOST:
            message = "the mail server closed the connection while it took the message, which may have been sent"
            raise RunError("email-unconfirmed", message, final=True)
        return Delivery(list(envelope.recipients))


def _read(envelope: Envelope) -> dict[str, Any]:
    """Return a message as `expect` compares it: what the parameters of `email.send` were, decoded."""
    message = message_from_bytes(envelope.content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    named = {name: _addresses(message, name) for name in ("to", "cc", "reply-to")}
    visible = {each["address"] for each in (*named["to"], *named["cc"])}
    return {
        "from": _shown(_addresses(message, "from")[0]),
        "to": _one_or_all(named["to"]),
        "cc": _one_or_all(named["cc"]),
        "bcc": _one_or_all([{"address": each, "name": ""} for each in envelope.recipients if each not in visible]),
        "replyTo": _one_or_all(named["reply-to"]),
        "subject": str(message["subject"]),
        "text": None if text is None else _content(text),
        "html": None if html is None else _content(html),
        "attachments": [_attachment(part) for part in message.iter_attachments()],
        "headers": {name: str(value) for name, value in message.items()},
    }


def _addresses(message: EmailMessage, name: str) -> list[dict[str, str]]:
    field = message[name]
    listed = () if field is None else field.addresses
    # A local part in UTF-8 (RFC 6532) is read as surrogates.
    return [
        {"address": each.addr_spec.encode("ascii", "surrogateescape").decode(), "name": each.display_name}
        for each in listed
    ]


def _shown(address: Mapping[str, str]) -> str:
    return f"{address['name']} <{address['address']}>" if address["name"] else address["address"]


def _one_or_all(addresses: list[dict[str, str]]) -> Any:
    """Return addresses as they are written: alone, or in a list; null without any."""
    shown = [_shown(each) for each in addresses]
    return shown[0] if len(shown) == 1 else shown or None


def _content(part: MIMEPart) -> str:
    return str(part.get_content()).replace("\r\n", "\n").removesuffix("\n")


def _attachment(part: Any) -> dict[str, Any]:
    content = part.get_content()
    return {"filename": part.get_filename(), "contentType": part.get_content_type(), "content": content}
