"""Text of documentation: what scripts/corpus takes out of HTML, man pages, info, reStructuredText, POD, dictionaries and
R data. A reader gives the paragraphs of one file; only what reads like English prose is kept.
"""
import gzip
import hashlib
import html.parser
import re
import struct
import zlib

SHORTEST = 300  # characters of a document that is worth keeping
PIECE = 4000  # characters of a document cut from a work in one file

# ---- paragraphs

COMMON = frozenset(
    "the of and to a in is that for it as with be on are this by or an not from which at can you if when was were will "
    "has have had his he they she her their its but all use used one may more must so than then there these those any "
    "each other into no only some such do does how what who would should could also been him them we our your i my me "
    "up out about after before where while between both over under same first two see".split()
)
WORD = re.compile(r"[A-Za-z][a-z']*")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\ufeff\u00ad]")
QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "--",
                        "\u2026": "...", "\u00a0": " ", "\u00b6": " "})  # fmt: skip


def flat(text):
    """One line, one kind of space, plain quotes."""
    return " ".join(CONTROL.sub("", text.translate(QUOTES)).split())


def is_prose(paragraph):
    """Enough words, few signs and figures among them, and a fifth of them the commonest of English."""
    words = WORD.findall(paragraph)
    if len(words) < 8:
        return False
    letters = sum(map(len, words))
    common = sum(word.lower() in COMMON for word in words)
    return letters + len(words) >= 0.78 * len(paragraph) and common >= 0.2 * len(words)


def fingerprint(text):
    """Equal for texts that differ in case, space and punctuation alone."""
    return hashlib.blake2b(re.sub(r"[\W_]+", "", text.lower()).encode(), digest_size=8).digest()


def pieces(paragraphs, length=PIECE):
    """Documents of about `length` characters, each paragraph whole."""
    piece, size = [], 0
    for paragraph in paragraphs:
        piece.append(paragraph)
        size += len(paragraph)
        if size >= length:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def decoded(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def blocks_of(lines):
    """Lines between blank ones, joined."""
    block = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield flat(" ".join(block))
            block = []
    if block:
        yield flat(" ".join(block))


# ---- HTML


class HtmlText(html.parser.HTMLParser):
    """Blocks of text; navigation, code and tables of symbols are left out."""

    BLOCKS = frozenset("p div li dt dd h1 h2 h3 h4 h5 h6 tr td th section article blockquote br hr table ul ol dl body "
                       "main figure figcaption caption title details summary".split())  # fmt: skip
    LEFT_OUT = frozenset("script style head nav header footer aside button form svg math noscript pre textarea select "
                         "title".split())  # fmt: skip
    CLOSED = frozenset("div nav ul ol section span table aside a".split())  # always with an end tag
    MARKS = frozenset("sphinxsidebar related navheader navfooter headerlink toctree-wrapper contents toc index footer "
                      "indextable genindextable highlight literal-block programlisting screen synopsis nav menu "
                      "breadcrumb breadcrumbs sidebar navigation bodytoc nav-panel header".split())  # fmt: skip

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.blocks, self.text = [], []
        self.skipped, self.depth = None, 0

    def handle_starttag(self, tag, attributes):
        if self.skipped:
            self.depth += tag == self.skipped
            return
        if tag in self.LEFT_OUT or (tag in self.CLOSED and self.is_marked(attributes)):
            self.skipped, self.depth = tag, 1
        if tag in self.BLOCKS or self.skipped not in (None, "span", "a"):
            self.flush()

    def handle_endtag(self, tag):
        if self.skipped:
            self.depth -= tag == self.skipped
            if self.depth == 0:
                self.skipped = None
        elif tag in self.BLOCKS:
            self.flush()

    def handle_data(self, data):
        if not self.skipped:
            self.text.append(data)

    def is_marked(self, attributes):
        return any(name in ("class", "id", "role") and value and not self.MARKS.isdisjoint(value.lower().split())
                   for name, value in attributes)  # fmt: skip

    def flush(self):
        block = flat("".join(self.text))
        self.text.clear()
        if block:
            self.blocks.append(block)


def html_text(data):
    reader = HtmlText()
    reader.feed(decoded(data))
    reader.close()
    reader.flush()
    return reader.blocks


# ---- man pages

ROFF_WORDS = {"aq": "'", "bu": "-", "en": "-", "em": "--", "hy": "-", "lq": '"', "rq": '"', "oq": "'", "cq": "'",
              "co": "(C)", "ti": "~", "ha": "^", "rs": "\\", "dq": '"', "mi": "-", "..": "..."}  # fmt: skip
ROFF_ESCAPE = re.compile(
    r"\\(?:\"|#).*$|\\f(?:\[[^]]*\]|\(..|.)|\\s[-+]?\d|\\\*(?:\[(?P<s>[^]]*)\]|\((?P<s2>..)|.)"
    r"|\\\((?P<c>..)|\\\[(?P<c2>[^]]*)\]|\\(?P<one>.)"
)
ROFF_BREAKS = frozenset("SH SS PP P LP TP TQ IP HP sp br RS RE".split())
ROFF_JOINED = frozenset("BR RB IR RI BI IB MR".split())
ROFF_PLAIN = frozenset("B I SM SB R".split())


def roff_plain(line):
    def replaced(match):
        word = match["s"] or match["s2"] or match["c"] or match["c2"]
        if word:
            return ROFF_WORDS.get(word, "'" if word == "Aq" else "")
        one = match["one"]
        return {"-": "-", "e": "\\", " ": " ", "~": " ", "0": " "}.get(one, "") if one else ""

    return ROFF_ESCAPE.sub(replaced, line)


def roff_words(text):
    return [quoted.replace('""', '"') or bare for quoted, bare in re.findall(r'"((?:[^"]|"")*)"?|(\S+)', text)]


def man_text(data):
    """Of pages with the man macros; those with mdoc's are left out."""
    lines, code, tag = [], None, False
    source = decoded(data)
    if re.search(r"^\.Dd", source, re.MULTILINE):
        return []
    for line in source.splitlines():
        if code:
            code = None if line.startswith(code) else code
            continue
        if not line.startswith((".", "'")):
            lines.append(roff_plain(line))
            lines += [""] * tag
            tag = False
            continue
        macro, _, rest = line[1:].strip().partition(" ")
        code = {"nf": ".fi", "EX": ".EE", "TS": ".TE", "EQ": ".EN", "de": "..", "ig": ".."}.get(macro)
        if macro in ROFF_BREAKS or code:
            lines.append("")
            tag = macro in ("TP", "TQ")
        elif macro in ROFF_JOINED or macro in ROFF_PLAIN:
            lines.append(roff_plain(("" if macro in ROFF_JOINED else " ").join(roff_words(rest))))
            lines += [""] * tag
            tag = False
    return list(blocks_of(lines))


# ---- info, reStructuredText, POD, plain text


def info_text(data):
    """Nodes of an info file without their heads and menus."""
    blocks = []
    for node in decoded(data).split("\x1f")[1:]:
        node = node.lstrip("\n")
        if node.startswith(("Tag Table", "Indirect", "End Tag Table", "Local Variables")):
            continue
        body = node.partition("\n")[2]
        body = re.split(r"^\* Menu:", body, maxsplit=1, flags=re.MULTILINE)[0]
        body = re.sub(r"\*note ([^:]*)::", r"\1", re.sub(r"\*note ([^:]*): [^.,]*[.,]", r"\1 ", body, flags=re.I), flags=re.I)
        blocks += blocks_of(body.splitlines())
    return blocks


RST_TEXT = frozenset("note warning tip important caution hint attention danger seealso admonition versionadded "
                     "versionchanged deprecated".split())  # fmt: skip
RST_INLINE = [
    (re.compile(r":[a-zA-Z:+_-]+:`~?!?([^`<]+?)(?:\s*<[^`>]*>)?`"), r"\1"),
    (re.compile(r"``([^`]*)``"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),
    (re.compile(r"`([^`]+)`_{0,2}"), r"\1"),
    (re.compile(r"\*\*?([^*\s](?:[^*]*[^*\s])?)\*\*?"), r"\1"),
    (re.compile(r"\s*\[[#\w]+\]_"), ""),
    (re.compile(r"\b(\w+)__?(?=[\s.,;:)]|$)"), r"\1"),
]


def indent_of(line):
    return len(line) - len(line.lstrip())


def rst_text(data):
    """Paragraphs, list items and remarks; literal blocks and other directives are left out."""
    lines, literal = [], None
    for line in decoded(data).expandtabs().splitlines():
        depth, bare = indent_of(line), line.strip()
        if literal is not None and (not bare or depth > literal):
            continue
        literal = None
        if bare.startswith(".. ") or bare == "..":
            directive = re.match(r"\.\.\s+([\w-]+)::(.*)", bare)
            lines.append("")
            if directive and directive[1] in RST_TEXT:
                lines.append(directive[2])
            else:
                literal = depth
        elif re.fullmatch(r"([=\-~^\"'`#*+:.<>_])\1{2,}", bare) or "===" in bare:
            lines.append("")
        elif bare.startswith(":"):
            lines += ["", re.sub(r"^:[^:]*:", "", bare)]
        elif re.match(r"([-*+]|#\.|\d+[.)]|\(\w\)|[a-z]\))\s", bare):
            lines += ["", bare]
        else:
            if bare.endswith("::"):
                literal, line = depth, line.replace("::", ":")
            lines.append(line)
            lines += [""] * (literal is not None)
    return [rst_plain(block) for block in blocks_of(lines)]


def rst_plain(text):
    for pattern, plain in RST_INLINE:
        text = pattern.sub(plain, text)
    return text.replace("\\ ", "").replace("|", "")


def pod_text(data):
    """Ordinary paragraphs of Perl's documentation."""
    blocks, left_out = [], False
    for block in re.split(r"\n\s*\n", decoded(data)):
        if block.startswith("=begin") or block.startswith("=for"):
            left_out = block.startswith("=begin")
        elif block.startswith("=end"):
            left_out = False
        elif block and not left_out and not block.startswith(("=", " ", "\t")):
            blocks.append(flat(pod_plain(block)))
    return blocks


def pod_plain(text):
    text = re.sub(r"[A-Z](<<+)\s(.*?)\s>>+", r"\2", text, flags=re.DOTALL)
    entities = {"lt": "<", "gt": ">", "sol": "/", "verbar": "|"}
    before = None
    while before != text:
        before = text
        text = re.sub(r"E<(\w+)>", lambda found: entities.get(found[1], ""), re.sub(r"[XZ]<[^<>]*>", "", text))
        text = re.sub(r"L<([^<>|]*\|)?([^<>]*)>", lambda found: (found[1] or found[2]).rstrip("|"), text)
        text = re.sub(r"[BCFIS]<([^<>]*)>", r"\1", text)
    return text


def plain_text(data):
    return list(blocks_of(decoded(data).splitlines()))


def markdown_text(data):
    text = re.sub(r"^```.*?^```", "", decoded(data), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"^#+.*$", "", text, flags=re.MULTILINE))
    return list(blocks_of(re.sub(r"[*_`]{1,3}|^> ?", "", text, flags=re.MULTILINE).splitlines()))


# ---- dictionaries and R data

DIGITS = {letter: value for value, letter in
          enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}  # fmt: skip


def dictd_number(text):
    number = 0
    for letter in text:
        number = number * 64 + DIGITS[letter]
    return number


def dictd_text(index, dictionary):
    """Entries in the order of their text: a word and what it means, one paragraph each."""
    text = gzip.decompress(dictionary)
    spans = set()
    for line in decoded(index).splitlines():
        word, start, length = (line.split("\t") + ["", ""])[:3]
        if not word.startswith(("00database", "00-database")):
            spans.add((dictd_number(start), dictd_number(length)))
    entries = []
    for start, length in sorted(spans):
        entry = re.sub(r"\[(?:1913 Webster|PJC|[A-Z]\w* ?\w*\. 1913|Webster 1913 Suppl\.)\]", "", decoded(text[start : start + length]))
        entry = flat(re.sub(r"[{}]|\\(?=\w)", "", entry))
        if len(WORD.findall(entry)) >= 8:
            entries.append(entry)
    return entries


def r_strings(data):
    """Character vectors of an R lazy-load database: zlib blocks behind four bytes of length, XDR inside."""
    at = 0
    while at < len(data):
        stream = zlib.decompressobj()
        block = stream.decompress(data[at + 4 :])
        at = len(data) - len(stream.unused_data)
        yield strings_of(block)


def strings_of(block):
    if block[:2] != b"X\n":
        raise ValueError("no XDR of R")
    version, native = struct.unpack(">i", block[2:6])[0], 14
    if version == 3:
        native = 18 + struct.unpack(">i", block[14:18])[0]
    kind, count = struct.unpack(">ii", block[native : native + 8])
    if kind & 0xFF != 16:
        return []
    at, strings = native + 8, []
    for _ in range(count):
        length = struct.unpack(">i", block[at + 4 : at + 8])[0]
        strings.append(decoded(block[at + 8 : at + 8 + max(0, length)]))
        at += 8 + max(0, length)
    return strings


def rdata_text(data):
    return [block for strings in r_strings(data) for block in blocks_of(strings)]


READERS = {"html": html_text, "man": man_text, "info": info_text, "rst": rst_text, "pod": pod_text, "text": plain_text,
           "markdown": markdown_text, "rdata": rdata_text}  # fmt: skip


def unpacked(name, data):
    return gzip.decompress(data) if name.endswith(".gz") else data


def paragraphs_of(form, name, data, companion=None):
    """Prose of one file. A dictionary needs its text beside its index; its entries are kept as they are."""
    if form == "dictd":
        return dictd_text(data, companion)
    return [block for block in READERS[form](unpacked(name, data)) if is_prose(block)]
