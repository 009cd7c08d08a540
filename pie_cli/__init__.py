"""pie: next-line code completion that survives edits, by Positional Integrity Encoding.

Importing the package loads nothing heavy; the library's front door is
`pie_cli.session.EditSession`.
"""

__version__ = "0.1.0"
