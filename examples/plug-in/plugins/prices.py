"""Amounts in other currencies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Literal, TypedDict

from streamstack import RunError, filter, function  # noqa: A004  (what declares a filter)

RATES = {"EUR": Decimal(1), "USD": Decimal("1.08"), "JPY": Decimal("163.5")}
SYMBOLS = {"EUR": "€", "USD": "$", "JPY": "¥"}


class Price(TypedDict):
    """An amount of a currency."""

    amount: Decimal
    currency: str


@function("prices.convert")
def convert(amount: Decimal, to: Literal["EUR", "USD", "JPY"], *, rounded: bool = True) -> Price:
    """Convert an amount of euros to another currency.

    Negative amounts fail with `negative-amount` (422).

    Args:
        amount: Amount in euros.
        to: Currency of the result.
        rounded: Round to what can be paid in the currency.
    """
    if amount < 0:
        raise RunError("negative-amount", "an amount can't be negative", status=422)
    converted = amount * RATES[to]
    if rounded:
        converted = converted.quantize(Decimal(1) if to == "JPY" else Decimal("0.01"))
    return {"amount": converted, "currency": to}


@function("prices.history")
async def history(amounts: AsyncIterator[Decimal], to: Literal["EUR", "USD", "JPY"]) -> AsyncIterator[Price]:
    """Convert the amounts of a list or stream, as they arrive.

    Args:
        amounts: Amounts in euros.
        to: Currency of the results.
    """
    async for amount in amounts:
        await asyncio.sleep(0.1)
        yield convert(amount, to)


@filter("money")
def money(price: Price) -> str:
    """Return a price as a text with the symbol of its currency."""
    return f"{SYMBOLS[price['currency']]}{price['amount']:,}"
