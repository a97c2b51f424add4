"""Campaigns to tell apart: templates of fictional companies, and as many personalised copies of each as wanted.

Templates and values are in `tests/data/campaign_*.toml`. A seed gives the same copies again. Values were
looked at while the fingerprint was made (TUNED), or measured once and then mended for (KEPT_BACK), or UNSEEN.
"""

import random
import string
import tomllib
from base64 import b64encode, encodebytes
from binascii import b2a_qp
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(__file__).parents[1] / "data"
FORMS = ("plain", "html")
KEPT_BACK, TUNED = "campaign_values_kept_back.toml", "campaign_values.toml"
UNSEEN, UNSEEN_LANGUAGES = "campaign_values_unseen.toml", frozenset(("en", "de", "fr", "es"))
UNNAMED = 0.2  # share of copies whose To has no display name
TOKEN = string.ascii_letters + string.digits
ENCODINGS = {
    "8bit": bytes,
    "quoted-printable": b2a_qp,
    "base64": lambda text: encodebytes(text).replace(b"\n", b"\r\n"),
}


class Template(NamedTuple):
    """One template; `twin` is the id of the one that it resembles most, if it was written to."""

    id: str
    lang: str
    sender: str
    subject: str
    body: str
    twin: str


@cache
def templates() -> tuple[Template, ...]:
    """All templates."""
    listed = tomllib.loads((DATA / "campaign_templates.toml").read_text())["template"]
    return tuple(
        Template(one["id"], one["lang"], one["from"], one["subject"], one["body"].strip(), one.get("twin", ""))
        for one in listed
    )


@cache
def _values(file: str) -> Mapping[str, Any]:
    return tomllib.loads((DATA / file).read_text())


class Copy:
    """The values of one copy, drawn one by one."""

    def __init__(self, template: Template, seed: int, values: str = KEPT_BACK) -> None:
        self.chance = random.Random(f"{template.id} {seed} {values}")
        self.lists = {**_values(values), **_values(values)[template.lang]}
        self.name = self.pick("names")
        self.product = self.pick("products")
        self.first, self.last = self.name.split()[0], self.name.split()[-1]

    def pick(self, kind: str) -> str:
        """A value of this kind."""
        return str(self.chance.choice(self.lists[kind]))

    def number(self, low: int = 2, high: int = 99) -> str:
        """A number in digits."""
        return str(self.chance.randint(low, high))

    def token(self, length: int = 22) -> str:
        """What stands in a link for one recipient."""
        return "".join(self.chance.choices(TOKEN, k=length))

    def reference(self) -> str:
        """A reference number as companies write them."""
        kind, digits = self.chance.randrange(3), self.number(10_000, 9_999_999)
        return (digits, f"AB-{digits}", f"{digits[:4]}/{digits[4:]}-x7")[kind]

    def fill(self, text: str) -> str:
        """The text with a value in each place."""
        parts = []
        for before, name, _, _ in string.Formatter().parse(text):
            parts += [before, self.value(name) if name else ""]
        return "".join(parts)

    def value(self, name: str) -> str:
        """A value for one place."""
        kinds = {"amount": "amounts", "time": "times", "postcode": "postcodes", "doctor": "doctors", "date": "dates"}
        kinds |= {"city": "cities"}
        if name in kinds:
            return self.pick(kinds[name])
        made = {
            "greeting": lambda: self.fill(self.pick("greetings")),
            "name": lambda: self.name,
            "first": lambda: self.first,
            "last": lambda: self.last,
            "product": lambda: self.product,
            "ref": self.reference,
            "digits": lambda: self.number(1000, 9999),
            "number": self.number,
            "link": lambda: f"https://l.example/{self.pick('paths')}/{self.token()}?u={self.token(8)}",
        }
        return made[name]()

    def rows(self) -> list[tuple[str, str, str]]:
        """Two to five rows of an order in any order, that of the text among them: quantity, product, amount."""
        products = [self.product, *(self.pick("products") for _ in range(self.chance.randint(1, 4)))]
        self.chance.shuffle(products)
        return [(self.number(1, 9), product, self.pick("amounts")) for product in products]


def copies(template: Template, form: str, count: int = 50, values: str = KEPT_BACK) -> Iterator[bytes]:
    """Personalised copies as sent, in one of FORMS."""
    for seed in range(count):
        yield message(template, form, Copy(template, seed, values))


def message(template: Template, form: str, copy: Copy) -> bytes:
    """One copy: headers with the recipient and what only this copy has, and the body."""
    company, _, sender = template.sender.partition(" <")
    domain = sender.partition("@")[2].rstrip(">")
    named = copy.chance.random() >= UNNAMED
    address = f"user{copy.number(1, 99_999)}@elsewhere.example"
    fields = {
        "From": f"{_words(company)} <{sender}",
        "To": f"{_words(copy.name, quoted=True)} <{address}>" if named else address,
        **({"Subject": _words(copy.fill(template.subject))} if template.subject else {}),
        "Message-ID": f"<{copy.token()}@{domain}>",
        "List-Unsubscribe": f"<https://{domain}/u/{copy.token()}>",
        "MIME-Version": "1.0",
    }
    if form == "plain":
        text = plain(template, copy)
        encoding, subtype = copy.chance.choice(tuple(ENCODINGS)), "plain"
    else:
        text, encoding, subtype = page(template, copy, domain) + "\n", "quoted-printable", "html"
    fields |= {"Content-Type": f'text/{subtype}; charset="utf-8"', "Content-Transfer-Encoding": encoding}
    header = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return header.encode() + b"\r\n" + ENCODINGS[encoding](text.replace("\n", "\r\n").encode())


def _words(text: str, *, quoted: bool = False) -> str:
    """Text of a header field as senders write it: plain, quoted, or in encoded words (RFC 2047) of a few characters."""
    if text.isascii():
        return f'"{text}"' if quoted and set(text) & set(".,") else text
    pieces = (text[start : start + 14] for start in range(0, len(text), 14))
    return "\r\n ".join(f"=?utf-8?b?{b64encode(piece.encode()).decode()}?=" for piece in pieces)


def _blocks(template: Template) -> Iterator[tuple[str, str]]:
    """Each paragraph with its mark."""
    for block in template.body.split("\n\n"):
        mark = block[0] if block[0] in "#>~%" else ""
        yield mark, block[len(mark) :].strip()


def plain(template: Template, copy: Copy) -> str:
    """The body as plain text, wrapped as it comes."""
    told = []
    for mark, block in _blocks(template):
        if mark == "%":
            told.append("\n".join(f"{number} x {product}   {amount}" for number, product, amount in copy.rows()))
        elif mark == ">":
            told.append(f"{copy.fill(block)}: {copy.value('link')}")
        else:
            told.append(copy.fill(block))
    return "\n\n".join(told) + "\n"


def page(template: Template, copy: Copy, domain: str) -> str:
    """The body as a page in tables, as mailing tools write them."""
    told = []
    for mark, block in _blocks(template):
        if mark == "%":
            rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in copy.rows())
            told.append("<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>")
            continue
        text = escape(copy.fill(block))
        link = f"https://click.{domain}/{copy.pick('paths')}/{copy.token()}"
        forms = {"#": "<h1>{}</h1>", ">": f'<p><a href="{link}">{{}}</a></p>', "~": '<p style="font-size:11px">{}</p>'}
        told.append(forms.get(mark, "<p>{}</p>").format(text))
    pixel = f'<img src="https://click.{domain}/o/{copy.token()}" width="1" height="1" alt="">'
    return f"<html><body><table><tr><td>{''.join(told)}</td></tr></table>{pixel}</body></html>"
