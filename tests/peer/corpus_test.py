"""scripts/corpus without a network: packages made here, read, cleaned, split and tokenised."""
import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import corpus_text  # noqa: E402

THEMES = ["the harbour", "a mill by the river", "the old library", "a long winter", "the road to the north", "his father's clock",
          "the garden wall", "a letter from home", "the market square", "an empty house"]  # fmt: skip
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def paragraph(page, number):
    theme = THEMES[(page + number) % len(THEMES)]
    return (f"On page {'abcdefghij'[page]} of the book there is a story about {theme}, and in part {'abcdefghij'[number]} of it "
            "we are told that nobody who had seen it would ever say what they thought of it when they were asked.")  # fmt: skip


def page_of(page, extra=""):
    body = "".join(f"<p>{paragraph(page, number)}</p>\n<pre>int code = {page};</pre>" for number in range(4))
    return (f"<html><head><title>no title</title></head><body><nav>Home is where you can find all of the other pages</nav>"
            f"<div class='sphinxsidebar'>This is what you should not see in any of the texts</div><h1>Page</h1>{body}{extra}</body></html>")  # fmt: skip


def dictd(entries):
    text, index = "", ""
    number = lambda value: (number(value // 64) if value > 63 else "") + BASE64[value % 64]  # noqa: E731
    for word, entry in entries.items():
        index += f"{word}\t{number(len(text))}\t{number(len(entry))}\n"
        text += entry
    return index.encode(), gzip.compress(text.encode(), mtime=0)


def corpus(*words, offline=True, path=""):
    command = [str(ROOT / "scripts" / "corpus"), *(["--offline"] if offline else []), *map(str, words)]
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


class Readers(unittest.TestCase):
    def test_html(self):
        blocks = corpus_text.html_text(page_of(0).encode())
        self.assertEqual(blocks, ["Page", *(paragraph(0, number) for number in range(4))])

    def test_man(self):
        page = (b'.\\" a remark\n.TH X 1\n.SH NAME\nx \\- does \\fBall\\fR of it\n.TP\n.B \\-v\nSays more, see\n.BR y (1),\nif "asked".\n'
                b".nf\ncode\n.fi\nAfter that.\n")  # fmt: skip
        self.assertEqual(corpus_text.man_text(page), ["x - does all of it", "-v", 'Says more, see y(1), if "asked".', "After that."])
        self.assertEqual(corpus_text.man_text(b".Dd today\n.Dt X 1\n"), [])

    def test_rst(self):
        text = (b"Title\n=====\n\nSome *text* with ``code`` and :ref:`a thing <x>` here::\n\n   int x;\n\n.. note:: remember\n   this.\n\n"
                b".. code-block:: c\n\n   drop\n\n- one\n- two\n")  # fmt: skip
        wanted = ["Title", "Some text with code and a thing here:", "remember this.", "- one", "- two"]
        self.assertEqual(corpus_text.rst_text(text), wanted)

    def test_pod(self):
        text = b"=head1 X\n\nSome C<code>, L<a text|perlfunc/x>, B<I<nested>> and C<< a < b >>.\n\n  verbatim\n\n=begin x\n\nno\n\n=end x\n"
        self.assertEqual(corpus_text.pod_text(text), ["Some code, a text, nested and a < b."])

    def test_info(self):
        text = b"head\n\x1f\nFile: a, Node: Top\n\nSome text of it, see *note The End: End.\n\n* Menu:\n\n* End::\n\x1f\nTag Table:\nx\n"
        self.assertEqual(corpus_text.info_text(text), ["Some text of it, see The End"])

    def test_dictd(self):
        entries = {"00-database-info": "This is what is said about the dictionary itself, not a word.\n",
                   "cat": "cat\n   An {animal} that lives in the house of a man. [1913 Webster]\n",
                   "dog": "dog\n   Another one of those, and it is not as clean as a cat is.\n"}  # fmt: skip
        wanted = ["cat An animal that lives in the house of a man.", "dog Another one of those, and it is not as clean as a cat is."]
        self.assertEqual(corpus_text.dictd_text(*dictd(entries)), wanted)

    def test_rdata(self):
        text = lambda line: struct.pack(">ii", 0x00040009, len(line)) + line  # noqa: E731
        lines = [b"EMMA", b"", b"It was a", b"long day."]
        block = b"X\n" + struct.pack(">iiii", 3, 0, 0, 5) + b"UTF-8" + struct.pack(">ii", 16, len(lines)) + b"".join(map(text, lines))
        stored = struct.pack(">I", len(block)) + zlib.compress(block)
        self.assertEqual(corpus_text.rdata_text(stored + stored), ["EMMA", "It was a long day."] * 2)

    def test_prose_is_told_from_code(self):
        self.assertTrue(corpus_text.is_prose(paragraph(0, 0)))
        for other in ("for (int i = 0; i < n; ++i) total += values[i] * weight(i, j); return total;",
                      "Der Hund lief durch den Garten und sah den Mann, der unter dem Baum stand und wartete.",
                      "Options", "1.5 2.5 3.5 0x40 the 0x41 of 0x42 to 99 and 98 97 96 in 95"):  # fmt: skip
            self.assertFalse(corpus_text.is_prose(other), other)


@unittest.skipUnless(shutil.which("dpkg-deb"), "no dpkg-deb here")
class Corpus(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.cache = self.folder / "cache"
        self.cache.mkdir()
        self.packages = self.folder / "packages.toml"
        self.packages.write_text('[[package]]\nname = "pages"\nkind = "stories"\nformat = "html"\nfiles = ["usr/share/pages/*.html"]\n'
                                 'without = ["*/left_out.html"]\n'
                                 '[[package]]\nname = "words"\nkind = "dictionaries"\nformat = "dictd"\n'
                                 'files = ["usr/share/dictd/words.index"]\ncut = true\n')  # fmt: skip
        self.pages = {f"usr/share/pages/{page}.html": page_of(page).encode() for page in range(9)}
        self.pages["usr/share/pages/left_out.html"] = page_of(9).encode()
        index, text = dictd({f"word{number:03}": f"word{number:03}\n  What the people of {number} towns have said of it when they "
                             "were asked, and it was not much at all.\n" for number in range(900)})  # fmt: skip
        self.words = {"usr/share/dictd/words.index": index, "usr/share/dictd/words.dict.dz": text}
        self.build("pages", "1:2.0-1", self.pages)
        self.build("words", "3", self.words)

    def build(self, name, version, files):
        root = self.folder / "root"
        for path, data in {f"usr/share/doc/{name}/copyright": f"Licence of {name}\n".encode(), **files}.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                (root / path).write_bytes(data)
            else:
                (root / path).symlink_to(data)
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN" / "control").write_text(f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
                                                 "Maintainer: T <t@example.org>\nDescription: text\n")  # fmt: skip
        file = self.cache / f"{name}_{version.replace(':', '%3a')}_all.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(root), str(file)], check=True, capture_output=True)
        shutil.rmtree(root)
        return file

    def make(self, name, *words, **how):
        words = ["--packages", self.packages, "--cache", self.cache, "--megabytes", 0.05, "--held_out", 30, "--vocabulary", 400, *words]
        return corpus("--out", self.folder / name, *words, **how)

    def made(self, name, *words):
        done = self.make(name, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.folder / name

    def documents(self, folder, part):
        return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()]

    def test_documents_and_where_they_came_from(self):
        out = self.made("o")
        train, held_out = self.documents(out, "train"), self.documents(out, "held_out")
        texts = {document["from"]: document["text"] for document in train + held_out}
        self.assertEqual(len(texts) - sum(name.startswith("words:") for name in texts), 9)
        self.assertEqual(texts["pages:usr/share/pages/3.html"], "\n".join(paragraph(3, number) for number in range(4)))
        self.assertFalse({document["text"] for document in train} & {document["text"] for document in held_out})
        told = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
        pages = told["packages"][0]
        self.assertEqual((pages["package"], pages["version"], pages["architecture"], pages["files"]), ("pages", "1:2.0-1", "all", 9))
        self.assertEqual(pages["sha256"], corpus_file_sha256(next(self.cache.glob("pages_*.deb"))))
        self.assertEqual((out / pages["licence"]).read_text(), "Licence of pages\n")
        self.assertEqual(told["characters"], sum(map(len, texts.values())))
        for part, documents in (("train", train), ("held_out", held_out)):
            self.assertEqual(told[part]["documents"], len(documents))
            self.assertEqual((out / f"{part}.bin").stat().st_size, 2 * told[part]["tokens"])
        kept = [json.loads(line) for line in (out / "files.jsonl").read_text(encoding="utf-8").splitlines()]
        self.assertEqual(sum(file["characters"] for file in kept), told["characters"])
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(out / "tokenizer" / "tokenizer.json"))
        first = tokenizer.encode(train[0]["text"], add_special_tokens=False).ids
        data = (out / "train.bin").read_bytes()
        self.assertEqual(list(struct.unpack(f"<{len(first) + 2}H", data[: 2 * len(first) + 4])), [0, *first, 1])

    def test_the_same_packages_give_the_same_bytes(self):
        one = self.made("one", "--workers", 1)
        shutil.rmtree(self.cache / "clean")
        two = self.made("two", "--workers", 2)
        names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
        self.assertEqual(names, sorted(str(path.relative_to(two)) for path in two.rglob("*") if path.is_file()))
        for name in names:
            self.assertEqual((one / name).read_bytes(), (two / name).read_bytes(), name)
        # Control: another version of a package shows.
        self.pages["usr/share/pages/3.html"] = page_of(3, f"<p>{paragraph(9, 9)}</p>").encode()
        next(self.cache.glob("pages_*.deb")).unlink()
        self.build("pages", "1:2.0-2", self.pages)
        three = self.made("three")
        self.assertNotEqual((one / "provenance.json").read_bytes(), (three / "provenance.json").read_bytes())
        texts = [document["text"] for part in ("train", "held_out") for document in self.documents(three, part)]
        self.assertEqual(sum(paragraph(9, 9) in text for text in texts), 1)

    def test_what_stood_before_is_dropped(self):
        shouted = page_of(9, f"<p>{paragraph(0, 0).upper().replace(',', '')}</p>")
        self.pages["usr/share/pages/9a.html"] = shouted.replace("the road", "that road").encode()  # 4 of its own, one of page 0's
        self.pages["usr/share/pages/9b.html"] = page_of(1).encode()  # all of it page 1's
        self.build("pages", "1:2.0-1", self.pages)
        out = self.made("o")
        texts = {d["from"].rpartition("/")[2]: d["text"] for part in ("train", "held_out") for d in self.documents(out, part)}
        self.assertIn("9a.html", texts)
        self.assertEqual(texts["9a.html"].count("\n"), 3)
        self.assertNotIn("9b.html", texts)
        self.assertIn("1.html", texts)  # the first one stays

    def test_a_larger_share_holds_out_the_same_and_more(self):
        held_out = []
        for share in (20, 50, 80):
            out = self.made(f"o{share}", "--held_out", share)
            held_out.append({document["text"] for document in self.documents(out, "held_out")})
        self.assertTrue(held_out[0] < held_out[1] < held_out[2])

    def test_at_most(self):
        with self.packages.open("a") as stream:
            stream.write("most = 0.01\n")
        out = self.made("o", "--megabytes", 0.01)
        told = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
        self.assertLessEqual(told["packages"][1]["characters"], 10000)
        self.assertGreater(told["packages"][1]["characters"], 4000)

    def refused(self, wanted, *words):
        done = self.make("refused", *words)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(wanted, done.stderr)
        self.assertEqual([path.name for path in self.folder.iterdir() if "refused" in path.name], [])

    def test_refusals(self):
        self.refused("MB of text, wanted at least 1;", "--megabytes", 1)
        self.refused("documents leave none for held_out", "--held_out", 0)
        self.refused("has no tokenizer.json", "--tokenizer", self.folder)
        self.refused("none of 2 packages can be had", "--cache", self.folder / "empty")
        other = self.folder / "other.toml"
        other.write_text('[[package]]\nname = "x"\nkind = "y"\nformat = "word"\nfiles = []\nfile = 1\n')
        self.refused("package 0 (x) lacks [], has unknown ['file'], format word; formats: dictd, html", "--packages", other)
        self.build("words", "3", {**self.words, "usr/share/dictd/words.dict.dz": b"torn"})
        self.refused("words_3_all.deb cannot be read as dictd")
        next(self.cache.glob("pages_*.deb")).write_bytes(b"no package")
        self.refused("is no package that dpkg-deb reads")
        (self.folder / "stands").mkdir()
        self.assertIn("exists; name another --out", self.make("stands").stderr)

    def apt(self, script):
        """An apt of our own: it offers both packages, and `script` is its download."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        offers = "".join(f"Package: {file.name.partition('_')[0]}\nVersion: {file.name.split('_')[1].replace('%3a', ':')}\nArchitecture: all\n"
                         f"Size: 1000\nSHA256: {corpus_file_sha256(file)}\n\n" for file in sorted(self.cache.glob("*.deb")))  # fmt: skip
        (folder / "offers").write_text(offers)
        (folder / "apt-cache").write_text(f"#!/bin/sh\ncat {folder}/offers\n")
        (folder / "apt-get").write_text(f"#!/bin/sh\necho $3 >> {folder}/asked\n{script}\n")
        for name in ("apt-cache", "apt-get"):
            (folder / name).chmod(0o755)
        return folder

    def test_packages_come_from_apt(self):
        store = self.folder / "store"
        folder = self.apt(f"cp {store}/${{3%=*}}_*.deb .")
        self.cache.rename(store)
        done = self.make("o", offline=False, path=folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((folder / "asked").read_text().split(), ["pages=1:2.0-1", "words=3"])
        self.assertEqual(sorted(file.name for file in self.cache.glob("*.deb")), sorted(file.name for file in store.iterdir()))
        again = self.make("again", offline=False, path=folder)  # what is there is not asked for
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(len((folder / "asked").read_text().split()), 2)

    def test_without_a_network_one_try_is_enough(self):
        folder = self.apt("echo 'W: a warning' >&2; echo 'E: Could not connect' >&2; exit 100")
        old = next(self.cache.glob("words_*.deb")).rename(self.cache / "words_2_all.deb")
        next(self.cache.glob("pages_*.deb")).unlink()
        done = self.make("o", offline=False, path=folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((folder / "asked").read_text().split(), ["pages=1:2.0-1"])
        self.assertIn("apt gives no words: taking words_2_all.deb of the cache", done.stderr)
        self.assertIn("left out, for apt gives none: pages; E: Could not connect", done.stderr)
        old.unlink()
        nothing = self.make("nothing", offline=False, path=folder)
        self.assertEqual(nothing.returncode, 2)
        self.assertIn("none of 2 packages can be had: E: Could not connect; is there a network? run apt-get update", nothing.stderr)

    def test_what_is_not_as_apt_says_is_refused(self):
        folder = self.apt(f"cp {self.folder}/other.deb words_3_all.deb")
        next(self.cache.glob("words_*.deb")).rename(self.folder / "other.deb")
        (self.folder / "other.deb").write_bytes((self.folder / "other.deb").read_bytes() + b"\n")
        done = self.make("o", offline=False, path=folder)
        self.assertIn("left out, for apt gives none: words; words_3_all.deb did not come as apt's list says", done.stderr)
        self.assertFalse((self.cache / "words_3_all.deb").exists())

    def test_a_copyright_file_may_be_another_packages(self):
        for holder, wanted in (("pages", "licences/pages"), ("others", "/usr/share/doc/others/copyright, in others")):
            self.build("words", "3", {**self.words, "usr/share/doc/words/copyright": f"../{holder}/copyright"})
            out = self.made(holder)
            told = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
            self.assertEqual([package["licence"] for package in told["packages"]], ["licences/pages", wanted])

    def test_a_package_that_is_missing_is_left_out_and_told(self):
        next(self.cache.glob("pages_*.deb")).unlink()
        out = self.made("o")
        self.assertEqual(json.loads((out / "provenance.json").read_text(encoding="utf-8"))["left_out"], ["pages"])


def corpus_file_sha256(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(unittest.main())
