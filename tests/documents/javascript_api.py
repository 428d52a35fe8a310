"""``docs/javascript.md``, from the comments of what ``static/client.js`` exports."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.documents.tables import table

CLIENT = Path(__file__).parents[2] / "static" / "client.js"
COMMENT = re.compile(r"^( *)/\*\*(.*?)\*/(?=\s*([^\n]*))", re.MULTILINE | re.DOTALL)
TAG = re.compile(r"(?:^|\s)@(\w+)")
LINK = re.compile(r"\{@link ([\w#]+)\}")
INTERNAL = "For the conversation"
"""How the comments of methods begin that are only for another module."""
ORDER = ("SessionClient", "Options", "State", "Turn", "Body", "Done", "MessageError", "Failure")

HEAD = """\
# JavaScript

`static/client.js`, for browsers and for Node from version 20 on. It needs no build step; types are
in its comments, which TypeScript reads. The [README](../README.md#clients) has an example and
says where to take it from. What is not on this page may change with any release.
"""


class Tag(NamedTuple):
    """One of a comment's tags.

    Attributes:
        name: Such as ``param``.
        type: What stands in braces after it.
        text: The rest.
    """

    name: str
    type: str
    text: str


class Comment(NamedTuple):
    """A comment, and the line of code that it is about.

    Attributes:
        indent: How far the line is indented: 0 for what a module has, 2 for what a class has.
        text: Without tags.
        tags: In their order.
        code: That line.
    """

    indent: int
    text: str
    tags: tuple[Tag, ...]
    code: str

    def tagged(self, name: str) -> list[Tag]:
        """The tags of this name."""
        return [tag for tag in self.tags if tag.name == name]

    @property
    def type(self) -> str:
        """What it says of its type."""
        return "".join(tag.type for tag in self.tagged("type"))


def comments(source: str) -> Iterator[Comment]:
    """All comments of a module that are about something."""
    for indent, body, code in COMMENT.findall(source):
        text = re.sub(r"^ *\* ?", "", body.strip(), flags=re.MULTILINE).strip()
        begins = [match.start() for match in TAG.finditer(text)]
        ends = [*begins[1:], len(text)] if begins else []
        tags = tuple(tag(text[a:b]) for a, b in zip(begins, ends, strict=True))
        # A comment that ends in a type says what something is before it.
        yield Comment(len(indent), prose(text[: begins[0]] if begins else text), tags, code)


def tag(text: str) -> Tag:
    """A tag, whose type may have braces of its own."""
    name, _, rest = text.strip().removeprefix("@").partition(" ")
    kind = ""
    if rest.startswith("{"):
        depth = 0
        for place, character in enumerate(rest):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                kind, rest = rest[1:place], rest[place + 1 :]
                break
    return Tag(name, " ".join(kind.split()), prose(rest.removeprefix("\n")))


def prose(text: str) -> str:
    """Paragraphs of one line each."""
    text = LINK.sub(r"`\1`", text)
    text = re.sub(r"`(\w+)#(\w+)`", r"`\1.\2`", text)
    return "\n\n".join(" ".join(each.split()) for each in re.split(r"\n{2,}", text.strip()))


def cell(text: str) -> str:
    """For a table."""
    return text.replace("|", "\\|")


def exported() -> dict[str, str]:
    """What the client exports, values and types, and the module that each is from."""
    source = CLIENT.read_text()
    names = {
        name.strip(): module
        for listed, module in re.findall(r"export \{([^}]*)\} from \"([^\"]+)\"", source)
        for name in listed.split(",")
        if name.strip()
    }
    types = re.findall(r"@typedef \{import\(\"([^\"]+)\"\)\.\w+\} (\w+)", source)
    return names | {name: module for module, name in types}


def typedef(name: str, found: list[Comment]) -> str | None:
    """What is said of a type."""
    for comment in found:
        for of in comment.tagged("typedef"):
            if of.text.split()[:1] != [name]:
                continue
            about = " ".join(of.text.split()[1:])
            if of.type != "object":
                return f"`{of.type}`\n\n{about}".strip()
            rows = []
            for each in comment.tagged("property"):
                key, _, meaning = each.text.partition(" ")
                optional = "?" * key.startswith("[")
                kind = f"`{cell(each.type)}`"
                rows.append((f"`{key.strip('[]')}`{optional}", kind, cell(meaning)))
            listed = table(("property", "is", "meaning"), rows)
            return f"{about}\n\n{listed}".strip()
    return None


def called(comment: Comment) -> str:
    """The arguments, what comes back and what is thrown, as a list."""
    lines = []
    for each in comment.tagged("param"):
        key, _, meaning = each.text.partition(" ")
        optional = ", optional" * key.startswith("[")
        meaning = f": {meaning}" if meaning else ""
        lines.append(f"- `{key.strip('[]')}` (`{each.type}`{optional}){meaning}")
    for name in ("returns", "throws"):
        for each in comment.tagged(name):
            meaning = f": {each.text}" if each.text else ""
            lines.append(f"- {name} `{each.type}`{meaning}")
    return "\n".join(lines)


def members(name: str, source: str) -> Iterator[tuple[str, Comment]]:
    """What a class has for others, by the name with which it is written."""
    body = source[source.index(f"export class {name}") :]
    for comment in comments(body[: body.find("\n}\n")]):
        code = comment.code
        own = comment.indent == 2 or code.startswith("this.")  # what a constructor sets
        if not own or comment.text.startswith(INTERNAL):
            continue
        if match := re.match(r"(?:this\.)?(\w+) ?=|get (\w+)\(", code):
            yield match[1] or match[2], comment
        elif code.startswith("constructor(url"):
            yield f"new {name}(url, options)", comment
        elif (match := re.match(r"(?:async )?(\w+)\(([^{]*)\) \{", code)) and comment.text:
            arguments = ", ".join(each.partition(" = ")[0] for each in match[2].split(", "))
            yield f"{match[1]}({arguments})", comment


def text_of(name: str, module: str) -> str:
    """What is said of one name."""
    source = (CLIENT.parent / module).read_text()
    found = list(comments(source))
    said = typedef(name, found)
    if said is not None:
        return f"\n## `{name}`\n\n{said}\n"
    about = next((each for each in found if re.match(rf"export \w+ {name}\b", each.code)), None)
    value = re.search(rf"^export const {name} = (.*);$", source, re.MULTILINE)
    if value is not None:
        told = about.text if about and not about.tagged("typedef") else ""
        return "\n\n".join(filter(None, [f"\n## `{name}`", f"`{value[1]}`", told])) + "\n"
    assert about is not None, name
    if not about.code.startswith("export class"):
        kind = f"`{about.type}`" if about.type else ""
        shown = [f"\n## `{name}`", about.text, kind, called(about)]
        return "\n\n".join(filter(None, shown)) + "\n"
    parts = [f"\n## `{name}`\n\n{about.text}\n"]
    for member, comment in members(name, source):
        kind = f"`{comment.type}`" if comment.type else ""
        shown = [f"\n### `{member}`", kind, comment.text, called(comment)]
        parts.append("\n\n".join(filter(None, shown)) + "\n")
    return "".join(parts)


def written(_document: str) -> str:
    """The document as it should be."""
    names = exported()
    order = [*(name for name in ORDER if name in names), *sorted(set(names) - set(ORDER))]
    return HEAD + "".join(text_of(name, names[name]) for name in order)
