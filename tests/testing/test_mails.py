"""Mails in tests of definitions: none is sent, and they are compared with what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.running import run_one

PROJECT = """\
method: POST
path: /welcome
responseType: streaming
inputParameters:
  to: {type: list, items: {type: text}}
functionStack:
  - forEach:
      in: << input.to >>
      as: address
      do:
        - email.send:
            to: << address >>
            subject: Grüße
            text: "Hello,\\nwelcome."
            html: <p>Hello</p>
            replyTo: help@example.org
            attachments: [{content: "a,b", filename: a.csv, contentType: text/csv}]
            headers: {X-Campaign: 7}
          as: mail
        - stream: << mail.accepted | join >>
"""
#: It sends again whatever the error was.
RESENT = """\
method: POST
path: /welcome
unknownInputs: ignore
responseType: streaming
functionStack:
  - try:
      do: [{email.send: {to: a@example.org, subject: Hi, text: Hi}}]
      catch: {do: [{email.send: {to: a@example.org, subject: Hi, text: Hi}}]}
  - stream: done
"""
SETTINGS = {"streamstack.yaml": "email: {url: << env.SMTP_URL >>, from: Shop <shop@example.org>}\n"}
SEND = "request: {method: POST, path: /welcome, body: {to: [ada@example.org]}}\n"
WHOLE = (
    "{to: ada@example.org, from: Shop <shop@example.org>, cc: null, bcc: null, replyTo: help@example.org, "
    'subject: Grüße, text: "Hello,\\nwelcome.", html: <p>Hello</p>, headers: {X-Campaign: 7}, '
    'attachments: [{filename: a.csv, contentType: text/csv, content: "a,b"}]}'
)


@pytest.mark.parametrize(
    ("expected", "failure"),
    [
        (f"[{WHOLE}]", ""),
        ("{subject: << value is string >>}", ""),
        ("[{subject: Hello}]", "`mails`: `subject`: expected"),
        ("[{attachments: []}]", "`mails`: `attachments`: expected 0 items, received 1"),
        ("[]", "`mails`: expected 0 mails, sent 1"),
        (f"[{WHOLE}, {{to: eve@example.org}}]", "`mails`: expected 2 mails, sent 1"),
    ],
)
def test_mails_are_compared(tmp_path: Path, expected: str, failure: str) -> None:
    """Each part of a mail can be expected; one too many or too few fails."""
    found = run_one(tmp_path, PROJECT, f"{SEND}expect: {{chunks: [ada@example.org], mails: {expected}}}", SETTINGS)
    assert found.startswith(failure) if failure else not found, found


def test_a_mail_server_fails_under_the_sweep(tmp_path: Path) -> None:
    """The sweep lets the mail server reject each mail, and be lost while it takes it: no mail may be sent twice."""
    test = "request: {method: POST, path: /welcome, body: {to: [a@example.org, b@example.org]}}\nfaults: mail\n"
    assert run_one(tmp_path, PROJECT, test, SETTINGS) == ""
    retried = PROJECT.replace(
        "          as: mail", "          as: mail\n          retry: {times: 3, on: [email-unconfirmed]}"
    )
    assert run_one(tmp_path, retried, test, SETTINGS) == ""
    found = run_one(tmp_path, RESENT, test, SETTINGS)
    assert "the mail `Hi` to a@example.org is sent 2 times instead of 1" in found


#: It sends on what a client uploads.
UPLOAD = """\
method: POST
path: /welcome
responseType: json
inputParameters:
  file: {type: file, required: true}
functionStack:
  - email.send: {to: a@example.org, subject: << input.file.name >>, text: Hi, attachments: [<< input.file >>]}
  - return: sent
"""


def test_uploads_are_attached(tmp_path: Path) -> None:
    """A file of a client is attached with its name and type."""
    file = "{value: 'a,b', filename: p.csv, type: text/csv}"
    request = f"request: {{method: POST, path: /welcome, multipart: {{file: {file}}}}}\n"
    attachments = "[{filename: p.csv, contentType: text/csv, content: 'a,b'}]"
    test = f"{request}expect: {{body: sent, mails: {{subject: p.csv, attachments: {attachments}}}}}\n"
    assert run_one(tmp_path, UPLOAD, test, SETTINGS) == ""
