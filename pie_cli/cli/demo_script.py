"""What the demo saves: a module of a small shop, and edits of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FILE_NAME: Final = "inventory.py"

TEXT: Final = '''"""Stock of a small shop: items, deliveries, orders, reports."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

VAT_RATE = 0.19
LOW_STOCK = 5
CURRENCY = "EUR"


class StockError(Exception):
    """Raised when an order asks for more than there is."""


@dataclass
class Item:
    """An article, with its price before tax and what is left of it."""

    name: str
    price: float
    amount: int = 0
    tags: list[str] = field(default_factory=list)

    def gross_price(self):
        """Return the price of one unit, tax included."""
        return round(self.price * (1 + VAT_RATE), 2)

    def is_low(self):
        """Return whether it should be ordered again."""
        return self.amount < LOW_STOCK


def parse_tags(text):
    """Split a comma-separated list of tags."""
    tags = []
    for part in text.split(","):
        part = part.strip().lower()
        if part:
            tags.append(part)
    return tags


def format_price(price):
    """Return a price as it is printed."""
    return f"{price:,.2f} {CURRENCY}"


def read_items(path):
    """Read items from a CSV file with the columns name, price, amount and tags."""
    items = []
    with Path(path).open(newline="") as file:
        for row in csv.DictReader(file):
            item = Item(
                name=row["name"],
                price=float(row["price"]),
                amount=int(row["amount"]),
                tags=parse_tags(row["tags"]),
            )
            items.append(item)
    return items


class Inventory:
    """All items of the shop, by name."""

    def __init__(self, items=()):
        self.items = {}
        for item in items:
            self.add(item)

    def add(self, item):
        """Take an item into the inventory."""
        if item.name in self.items:
            raise ValueError(f"there is an item {item.name} already")
        self.items[item.name] = item

    def remove(self, name):
        """Take an item out of the inventory."""
        if name not in self.items:
            raise KeyError(name)
        return self.items.pop(name)

    def deliver(self, name, amount):
        """Add what a delivery brought."""
        if amount <= 0:
            raise ValueError("a delivery brings at least one unit")
        self.items[name].amount += amount

    def order(self, name, amount):
        """Take what an order needs, and return its price."""
        item = self.items[name]
        if item.amount < amount:
            raise StockError(f"only {item.amount} of {name} left")
        item.amount -= amount
        return item.gross_price() * amount

    def find(self, tag):
        """Return the items that carry a tag."""
        found = []
        for item in self.items.values():
            if tag in item.tags:
                found.append(item)
        return found

    def low_items(self):
        """Return the items that should be ordered again."""
        return [item for item in self.items.values() if item.is_low()]

    def save(self, path):
        """Write all items to a JSON file."""
        rows = []
        for item in self.items.values():
            row = {
                "name": item.name,
                "price": item.price,
                "amount": item.amount,
                "tags": item.tags,
            }
            rows.append(row)
        Path(path).write_text(json.dumps(rows, indent=2))

    def report(self):
        """Return a table of all items, one a line."""
        lines = []
        for item in self.items.values():
            line = f"{item.name:<20} {item.amount:>6} {format_price(item.price):>12}"
            lines.append(line)
        return "\\n".join(lines)

    def most_expensive(self):
        """Return the item with the highest price."""
        best = None
        for item in self.items.values():
            if best is None or item.price > best.price:
                best = item
        return best

    def total_value(self):
        """Return the value of everything in stock."""
        total = 0.0
        for item in self.items.values():
            total += item.price * item.amount
        return total

    def cheapest(self):
        """Return the item with the lowest price."""
        best = None
        for item in self.items.values():
'''
"""Ends inside of a function, where the next line can be told from those above."""

_HELPER = '''def normalize_name(name):
    """Return a name as the inventory keeps it."""
    words = name.strip().lower().split()
    return " ".join(words)


'''

_PARSE_TAGS = TEXT[TEXT.index("def parse_tags") : TEXT.index("def format_price")]


@dataclass(frozen=True)
class Edit:
    """One save of the demo.

    Attributes:
        what: one line to a person.
        change: the text before to the text after.
    """

    what: str
    change: Callable[[str], str]


def _replace(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


EDITS: Final = (
    Edit(
        "insert a function above all others",
        _replace("class StockError", f"{_HELPER}class StockError"),
    ),
    Edit(
        f"rename the field amount to quantity, in {TEXT.count('amount')} places",
        _replace("amount", "quantity"),
    ),
    Edit(
        "delete a helper, and its one use",
        lambda text: text.replace(_PARSE_TAGS, "").replace(
            'parse_tags(row["tags"])', 'row["tags"].split(",")'
        ),
    ),
    Edit("change a constant", _replace("LOW_STOCK = 5", "LOW_STOCK = 12")),
    Edit("undo everything", lambda _: TEXT),
)
"""In this order, each on what the last one left."""


def texts() -> list[str]:
    """Return the file's texts, the first one and one after each edit."""
    states = [TEXT]
    for edit in EDITS:
        states.append(edit.change(states[-1]))
    return states
