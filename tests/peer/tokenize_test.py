"""scripts/tokenize against the files of examples/tiny-mixtral, and what it refuses."""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TINY = ROOT / "examples" / "tiny-mixtral"
TEMPLATE = (
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)
TURNS = [
    {"role": "user", "content": "Who was the first king?"},
    {"role": "assistant", "content": "Saul the son of Kish."},
    {"role": "user", "content": "And after him?"},
    {"role": "assistant", "content": "David."},
]


def tokenize(*words):
    return subprocess.run(
        [str(ROOT / "scripts" / "tokenize"), *map(str, words)], capture_output=True, text=True, check=False
    )


class Tokenize(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def chat_tokenizer(self, template=TEMPLATE):
        model = self.folder / "model"
        model.mkdir()
        shutil.copy(TINY / "tokenizer.json", model)
        config = json.loads((TINY / "tokenizer_config.json").read_text(encoding="utf-8"))
        config["chat_template"] = template
        (model / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return model

    def refused(self, *words):
        done = tokenize("--out", self.folder / "x", *words)
        self.assertNotEqual(done.returncode, 0)
        left = [path.name for path in self.folder.iterdir() if ".x." in path.name or path.name.startswith("x.")]
        self.assertEqual(left, [])
        return done.stderr

    def test_equals_the_recorded_tokens(self):
        for workers in (1, 3):
            out = self.folder / f"w{workers}"
            done = tokenize("--tokenizer", TINY, "--workers", workers, "--out", out, TINY / "data" / "held_out.txt")
            self.assertEqual(done.returncode, 0, done.stderr)
            recorded = (TINY / "data" / "held_out.u16").read_bytes()
            self.assertEqual((self.folder / f"w{workers}.bin").read_bytes(), recorded)
        for kind in ("idx", "json"):
            self.assertEqual((self.folder / f"w1.{kind}").read_bytes(), (self.folder / f"w3.{kind}").read_bytes())
        told = json.loads((self.folder / "w1.json").read_text(encoding="utf-8"))
        self.assertEqual((told["documents"], told["tokens"]), (103, 112813))
        # Control: without <s> and </s> it is another file.
        tokenize("--tokenizer", TINY, "--begin", "", "--end", "", "--out", self.folder / "bare", TINY / "data" / "held_out.txt")
        self.assertEqual((self.folder / "bare.bin").stat().st_size, 2 * (112813 - 2 * 103))

    def test_index_is_megatrons(self):
        text = self.write("a.txt", "First one.\nStill first.\n\n\nSecond.\n")
        lines = self.write("b.jsonl", '{"text": "Third."}\n\n{"text": "Fourth."}\n')
        self.assertEqual(tokenize("--tokenizer", TINY, "--out", self.folder / "o", text, lines).returncode, 0)
        index = (self.folder / "o.idx").read_bytes()
        magic, version, code, sequences, boundaries = struct.unpack("<9sQBQQ", index[:34])
        self.assertEqual((magic, version, code, sequences, boundaries), (b"MMIDIDX\0\0", 1, 8, 4, 5))
        lengths = struct.unpack("<4i", index[34:50])
        offsets = struct.unpack("<4q", index[50:82])
        self.assertEqual(offsets, (0, 2 * lengths[0], 2 * sum(lengths[:2]), 2 * sum(lengths[:3])))
        self.assertEqual(struct.unpack("<5q", index[82:]), (0, 1, 2, 3, 4))
        self.assertEqual((self.folder / "o.bin").stat().st_size, 2 * sum(lengths))

    def test_chat_masks_are_the_assistants(self):
        model = self.chat_tokenizer()
        lines = self.write("c.jsonl", json.dumps({"messages": TURNS}) + "\n")
        done = tokenize("--tokenizer", model, "--chat", "messages", "--out", self.folder / "c", lines)
        self.assertEqual(done.returncode, 0, done.stderr)
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
        raw = (self.folder / "c.bin").read_bytes()
        ids = struct.unpack(f"<{len(raw) // 2}H", raw)
        mask = (self.folder / "c.mask").read_bytes()
        self.assertEqual(len(mask), len(ids))
        # The space before an answer is one token with its first word.
        self.assertEqual(tokenizer.decode([i for i, m in zip(ids, mask) if m]), " Saul the son of Kish.\n David.\n")
        told = json.loads((self.folder / "c.json").read_text(encoding="utf-8"))
        self.assertEqual(told["targets"], sum(mask))

    def test_refusals(self):
        text = self.write("a.txt", "One.\n")
        bad = self.write("bad.jsonl", '{"text": "fine"}\n{"text": 5}\n')
        broken = self.write("broken.jsonl", '{"text": \n')
        latin = self.folder / "latin.txt"
        latin.write_bytes(b"caf\xe9\n")
        empty = self.write("empty.txt", "\n\n")
        say = lambda *words: self.refused("--tokenizer", TINY, *words)  # noqa: E731
        self.assertIn("bad.jsonl:2 has int, wanted a text", say(bad))
        self.assertIn("broken.jsonl:1 is no JSON", say(broken))
        self.assertIn("bad.jsonl:1 has no key 'body'", say("--key", "body", bad))
        self.assertIn("latin.txt:1 is no UTF-8", say(latin))
        self.assertIn("the inputs hold no document", say(empty))
        self.assertIn("not there: ", say(self.folder / "none.txt"))
        self.assertIn("has no token '<eot>'", say("--end", "<eot>", text))
        self.assertIn("has no chat template", say("--chat", "messages", bad))
        self.assertIn("tokenizer.json is not there", self.refused("--tokenizer", self.folder, text))

    def test_a_template_that_rewrites_turns_is_refused(self):
        model = self.chat_tokenizer("{{ messages | length }}" + TEMPLATE)
        lines = self.write("c.jsonl", json.dumps({"messages": TURNS}) + "\n")
        said = self.refused("--tokenizer", model, "--chat", "messages", lines)
        self.assertIn("c.jsonl:1: the chat template rewrites earlier turns", said)

    def test_nothing_is_replaced_unasked(self):
        text = self.write("a.txt", "One.\n")
        out = self.folder / "o"
        self.assertEqual(tokenize("--tokenizer", TINY, "--out", out, text).returncode, 0)
        before = (self.folder / "o.bin").read_bytes()
        text.write_text("Two.\n", encoding="utf-8")
        again = tokenize("--tokenizer", TINY, "--out", out, text)
        self.assertIn("o.bin exists", again.stderr)
        self.assertEqual((self.folder / "o.bin").read_bytes(), before)
        self.assertEqual(tokenize("--tokenizer", TINY, "--replace", "--out", out, text).returncode, 0)
        self.assertNotEqual((self.folder / "o.bin").read_bytes(), before)


if __name__ == "__main__":
    sys.exit(unittest.main())
