"""Held mail and campaigns as JSON documents. Names are a contract: fields are added, never renamed.

Times are epoch milliseconds UTC, 0 where there is none. Addresses, headers and text stand in the document of one
message alone, which somebody asked to see. Raises nothing.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .campaigns import CampaignDecision, CampaignLine
from .classification import Classification
from .documents import segment_document
from .held import By, HeldLine, Order, Tally
from .held_content import is_mail
from .ports import HeldCopy, HeldMessage


def line_document(line: HeldLine) -> dict[str, Any]:
    """One copy in a list."""
    return {**line._asdict(), "place": list(line.place), "state": str(line.state), "rules": list(line.rules)}


def tally_document(by: By, tally: Tally) -> dict[str, Any]:
    """How many copies have one value."""
    return {"by": str(by), **tally._asdict()}


def order_document(order: Order) -> dict[str, Any]:
    """An order: who, what, when and why."""
    return {**order._asdict(), "action": str(order.action)}


def held_document(
    held: HeldMessage, lines: Mapping[int, HeldLine], classification: Classification | None
) -> dict[str, Any]:
    """One message with its copies; `classification` is its content by the rules in force, None if that is gone."""
    message = classification.message if classification else None
    return {
        "queue_id": held.queue_id,
        "channel": str(held.channel),
        "received_at": held.received_at,
        "mail_from": held.mail.path.decode("utf-8", "replace"),
        "mail_params": [one.decode("utf-8", "replace") for one in held.mail.params],
        "label": held.label,
        "score": held.score,
        "ruleset": held.ruleset,
        "declared": held.declared,
        "campaign": held.campaign,
        "controller": held.controller,
        "brand": held.brand,
        "topic": held.topic,
        "size": max([line.size for line in lines.values()], default=len(held.content)),
        "trace": held.trace.decode("utf-8", "replace"),
        "copies": [_copy_document(copy, lines.get(number)) for number, copy in enumerate(held.copies)],
        "content": message is not None,
        "subject": message.subject if message else "",
        "headers": header_block(held.content) if message and is_mail(held) else "",
        "segments": [segment_document(segment) for segment in (classification.segments if classification else ())],
        "defects": [defect.code for defect in message.defects] if message else [],
    }


def header_block(content: bytes) -> str:
    """The header as it stands in the message."""
    return content.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")


def _copy_document(copy: HeldCopy, line: HeldLine | None) -> dict[str, Any]:
    return {
        "recipient": copy.recipient.path.decode("utf-8", "replace"),
        "params": [one.decode("utf-8", "replace") for one in copy.recipient.params],
        "subject": copy.subject_key,
        "disposition": str(copy.disposition),
        "reason": copy.reason,
        "notes": list(copy.notes),
        "consent": copy.state,
        "rules": list(copy.evidence),
        "state": str(line.state) if line else "",
        "changed_at": line.changed_at if line else 0,
        "attempts": line.attempts if line else 0,
        "due_at": line.due_at if line else 0,
        "outcome": line.outcome if line else "",
        "order": line.order if line else "",
    }


def decision_line_document(decision: CampaignDecision | None) -> dict[str, Any] | None:
    """A reviewer's decision."""
    return None if decision is None else {**decision._asdict(), "decided": str(decision.decided)}


def campaign_document(line: CampaignLine, held: int) -> dict[str, Any]:
    """A campaign of the ledger; `held` copies of it are held now."""
    values: dict[str, Any] = {one.name: getattr(line, one.name) for one in fields(line)}
    for name in ("labels", "recipients", "declared"):
        values[name] = dict(values[name])
    for name in ("decision", "waiting"):
        values[name] = decision_line_document(values[name])
    return {**values, "held": held}
