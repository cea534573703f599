"""10,000 random safetensors files, half of them broken: ours judges as the format's own implementation does.

usage: safetensors_reference.py JUDGE [COUNT] [SEED]
Where they differ, ours may only be the stricter one, in the ways listed in STRICTER.
"""
import collections
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

import safetensors

# What ours refuses although the reference reads it: part of ours' message, and why.
STRICTER = {
    "stands twice": "of equal keys the reference keeps the last",
    "the header starts with": "spaces in front of the header",
    "is unknown, wanted dtype, shape, data_offsets": "of keys it does not know the reference takes no notice",
    "is 2^63 or more": "a dimension that int64 cannot hold, beside one of 0",
    "__metadata__ is null": "to the reference null is no metadata",
}
BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32,
        "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64}
NAMES = ["a", "b", "model.layers.0.w", "lm_head.weight", "", "x" * 70, "\u00e9\u4e2d", "a\nb", "..", "dtype", "0"]
NUMBERS = ["0", "-0", "-1", "1.0", "1e2", "1e400", "2", "3", "7", "null", "true", '"4"', "[4]", "{}", "01", "+1", "0x1",
           "NaN", "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
           "4294967296", "65536"]


def whole(rng):
    """Entries that tile their data, and the data's size."""
    entries, at = [], 0
    for name in rng.sample(NAMES, rng.randint(0, 6)):
        dtype = rng.choice(list(BITS))
        shape = [rng.choice([0, 1, 1, 2, 3, 4, 8]) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 9]))]
        bits = BITS[dtype]
        for size in shape:
            bits *= size
        if bits % 8:
            shape, bits = shape + [8], bits * 8
        if bits > 80000:
            shape, bits = [8], BITS[dtype] * 8
        entries.append([name, dtype, shape, [at, at + bits // 8]])
        at += bits // 8
    if rng.random() < 0.3:
        rng.shuffle(entries)
    return entries, at


def text_of(rng, entries):
    parts = []
    if rng.random() < 0.4:
        metadata = {rng.choice(["format", "k", ""]): rng.choice(["pt", "", "\u00e9"]) for _ in range(rng.randint(0, 3))}
        parts.append('"__metadata__":' + json.dumps(metadata))
    for name, dtype, shape, offsets in entries:
        fields = [f'"dtype":{json.dumps(dtype)}', f'"shape":{json.dumps(shape)}', f'"data_offsets":{json.dumps(offsets)}']
        if rng.random() < 0.2:
            rng.shuffle(fields)
        parts.append(json.dumps(name, ensure_ascii=rng.random() < 0.5) + ":{" + ",".join(fields) + "}")
    return "{" + ",".join(parts) + "}" + " " * rng.choice([0, 0, 0, 1, 7])


def broken_entries(rng, entries):
    entry = rng.choice(entries)
    kind = rng.randrange(9)
    if kind == 0:
        entry[3][rng.randrange(2)] += rng.choice([-1, 1, 8, 1 << 40, (1 << 64) - 9])
    elif kind == 1:
        entry[2].append(rng.choice([0, 1, 2, 1 << 62, 1 << 63, -1, 1.5, "2", None, [1]]))
    elif kind == 2:
        entry[1] = rng.choice(["F12", "f32", "", 8, None, ["F32"], *BITS])
    elif kind == 3:
        entry[3] = rng.choice([[], [0], [0, 0, 0], {"0": 0}, "0,0", None, entry[3][::-1]])
    elif kind == 4:
        entry[2] = rng.choice([4, None, "x", {}, [[2]], [2 ** 32, 2 ** 32], [65536] * 4, [0, 2 ** 63]])
    elif kind == 5:
        entries.append([entry[0], *entry[1:]] if rng.random() < 0.5 else ["again", *entry[1:]])
    elif kind == 6:
        entries.remove(entry)
    elif kind == 7:
        entry[0] = "__metadata__"
    else:
        entry[2] = entry[2] + [1] * rng.choice([60, 64, 65, 70])


def broken_text(rng, text):
    at = rng.randrange(len(text))
    kind = rng.randrange(9)
    if kind == 0:
        return text[:at]
    if kind == 1:
        return text[:at] + rng.choice(list('{}[]",:0- \x00\ud800x')) + text[at:]
    if kind == 2:
        return text[:at] + text[at + 1:]
    if kind == 3:
        digits = [i for i, c in enumerate(text) if c.isdigit()]
        if not digits:
            return text + "x"
        at = rng.choice(digits)
        return text[:at] + rng.choice(NUMBERS) + text[at + 1:]
    if kind == 4:
        return rng.choice([" ", "\n", "\ufeff", "[", "x"]) + text
    if kind == 5:
        return text + rng.choice(["}", "x", "{}", "\x00", "\t", ",", "//"])
    if kind == 6:
        return text.replace('"dtype"', rng.choice(['"dtypes"', '"Dtype"', '"dtype":"U8","dtype"', '"extra":1,"dtype"']), 1)
    if kind == 7:
        return text.replace("{", '{"__metadata__":' + rng.choice(['{"k":1}', "null", "[]", '{"k":"v","k":"w"}', "{}"]) + ",", 1)
    return rng.choice(["[]", "null", "1", "", "{", '{"a":1}', '{"a":{}}', "[" * 200, '{"a":' * 200, '"x"'])


def make(rng, broken):
    entries, size = whole(rng)
    data = bytes(rng.randrange(256) for _ in range(min(size, 64))) + bytes(max(0, size - 64))
    where = rng.randrange(4) if broken else -1
    if where == 0 and entries:
        broken_entries(rng, entries)
    text = text_of(rng, entries)
    if where in (0, 1) and (where == 1 or not entries):
        text = broken_text(rng, text)
    raw = text.encode("utf-8", "surrogatepass")
    if where == 2:
        at = rng.randrange(len(raw))
        raw = raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1:]
    length = struct.pack("<Q", len(raw))
    if where == 3:
        kind = rng.randrange(4)
        if kind == 0:
            length = struct.pack("<Q", rng.choice([0, 1, len(raw) - 1, len(raw) + 1, 1 << 27, 1 << 32, (1 << 64) - 1]))
        elif kind == 1:
            data += b"x" * rng.randint(1, 9)
        elif kind == 2:
            return (length + raw + data)[:rng.randrange(8 + len(raw) + len(data))]
        else:
            data = data[1:] if data else b"x"
    return length + raw + data


def reference_reads(raw):
    try:
        safetensors.deserialize(raw)
        return True
    except Exception:
        return False


def main():
    judge, count, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10000, int(sys.argv[3]) if len(sys.argv) > 3 else 5
    start, rng = time.monotonic(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        names, wanted = [], []
        for i in range(count):
            raw = make(rng, i % 2 == 1)
            names.append(pathlib.Path(folder) / str(i))
            names[-1].write_bytes(raw)
            wanted.append(reference_reads(raw))
        answers = subprocess.run([judge], input="\n".join(map(str, names)) + "\n", capture_output=True, text=True,
                                 check=True).stdout.splitlines()
        assert len(answers) == count, f"{len(answers)} answers for {count} files"
        stricter, wrong = collections.Counter(), []
        for name, reads, answer in zip(names, wanted, answers):
            if reads == (answer == "read"):
                continue
            reason = next((why for part, why in STRICTER.items() if part in answer), None)
            if reads and reason:
                stricter[reason] += 1
            else:
                wrong.append(f"reference {'reads' if reads else 'refuses'}, ours: {answer}\n  {name.read_bytes()[:300]!r}")
    reads = sum(wanted)
    print(f"{count} files of seed {seed} in {time.monotonic() - start:.1f} s: {reads} read and {count - reads} refused by safetensors "
          f"{safetensors.__version__}; ours stricter: {dict(stricter)}; {len(wrong)} judged otherwise")
    print("\n".join(wrong[:10]))
    # A generator that only makes one kind would compare nothing.
    sys.exit(1 if wrong or not count * 0.45 < reads < count * 0.75 else 0)


main()
