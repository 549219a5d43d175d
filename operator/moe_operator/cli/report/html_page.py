"""The record as one page without scripts, links or anything from elsewhere, on screens and on paper. Pure."""

from collections.abc import Iterable, Iterator
from html import escape

from moe_operator.cli.report.blocks import Block, Fields, Heading, Items, Paragraph, Table
from moe_operator.cli.report.outline import TITLE
from moe_operator.cli.report.plain_text import plain

#: Characters of a cell that is not broken.
_SHORT = 24

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>%(title)s</title>
<style>
:root { color-scheme: light dark; }
body { font-family: system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; margin: 24px auto;
  max-width: 1080px; padding: 0 16px; color: #1f2328; background: #ffffff; font-size: 14px; line-height: 1.45; }
h1 { font-size: 22px; }
h2 { font-size: 18px; margin-top: 32px; padding-top: 8px; border-top: 1px solid #8a929a55; }
h3 { font-size: 15px; margin: 20px 0 6px; }
dl { display: grid; grid-template-columns: minmax(11em, max-content) 1fr; gap: 2px 16px; margin: 6px 0; }
dt { color: #59636e; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 10px 0; }
th, td { padding: 4px 10px; border-bottom: 1px solid #8a929a55; text-align: left; vertical-align: top;
  overflow-wrap: break-word; }
th { font-weight: 600; }
.short { white-space: nowrap; }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117; }
  dt { color: #9aa4ae; }
}
@media (max-width: 640px) { dl { grid-template-columns: 1fr; } dd { margin: 0 0 6px 12px; } }
@media print {
  @page { margin: 16mm; }
  body { color: #000000; background: #ffffff; font-size: 10pt; margin: 0; max-width: none; padding: 0; }
  table { font-size: 8pt; }
  dt { color: #333333; }
  h2, h3 { break-after: avoid; }
  tr, dt, dd, li { break-inside: avoid; }
  thead { display: table-header-group; }
  .wide { overflow: visible; }
}
</style>
</head>
<body>
%(body)s
</body>
</html>
"""


def html_page(blocks: Iterable[Block]) -> str:
    """The page."""
    return _PAGE % {
        "title": _text(TITLE),
        "body": "\n".join(part for block in blocks for part in _parts(block)),
    }


def _parts(block: Block) -> Iterator[str]:
    match block:
        case Heading(level, text):
            yield f"<h{level}>{_text(text)}</h{level}>"
        case Paragraph(text):
            yield f"<p>{_text(text)}</p>"
        case Fields(rows):
            if rows:
                yield f"<dl>{''.join(f'<dt>{_text(name)}</dt><dd>{_text(value)}</dd>' for name, value in rows)}</dl>"
        case Items(texts):
            if texts:
                yield f"<ul>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"
        case Table(header, rows):
            if rows:
                head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
                body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in rows)
                yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _cell(text: str) -> str:
    """Times, names and numbers stay in one line."""
    short = ' class="short"' if len(text) <= _SHORT else ""
    return f"<td{short}>{_text(text)}</td>"


def _text(text: str) -> str:
    return escape(plain(text))
