#!/usr/bin/env bash
# Nothing outside a model's directory is opened but the blobs that its links name: strace of inspect, plan and convert on
# a cache tree, a hostile index and a hostile pickle.
#   tests/peer/opened_files.sh MOUE
set -euo pipefail

moue=$(realpath "$1")
command -v strace > /dev/null || { echo "strace is not installed"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
strace -o "$scratch/probe" true 2> /dev/null || { echo "strace may not trace here"; exit 77; }

# Paths that a run opens, without the program's own: libraries, locales, the kernel's files.
opened() {
  (cd "$scratch" && strace -f -qq -e trace=open,openat,openat2,execve -o trace "$moue" "$@" > out.txt 2>&1) || true
  # Only the program itself is started.
  [ "$(grep -c 'execve(' "$scratch/trace")" = 1 ] || { echo "moue $1 starts programs"; exit 1; }
  grep -vE 'ENOENT|execve\(' "$scratch/trace" | grep -oE '"[^"]*"' | tr -d '"' | while read -r path; do
    case $path in /*) echo "$path" ;; *) echo "$scratch/$path" ;; esac
  done | grep -vE "^(/lib|/usr/lib|/etc/ld\.so|/proc/|/sys/|/dev/null|$(dirname "$moue")/)" | sort -u || true
}

# All of them must lie below one of the allowed places.
must_lie_in() {
  local paths=$1
  shift
  for path in $paths; do
    local inside=no
    [ "$path" = "$scratch/." ] && inside=yes  # the directory of a new directory, which is synced
    for place in "$@"; do [[ $path/ == "$place"/* ]] && inside=yes; done
    [ $inside = yes ] || { echo "opened outside: $path"; exit 1; }
  done
}

# A cache: snapshot of links, blobs beside it, and a file that nobody may open.
cache=$scratch/models--org--name
mkdir -p "$cache/blobs" "$cache/snapshots/rev" "$cache/refs"
printf rev > "$cache/refs/main"
for file in tests/golden/families/mixtral/*; do
  case $file in *expected*) continue ;; esac
  name=$(basename "$file")
  cp "$file" "$cache/blobs/blob-$name"
  ln -s "../../blobs/blob-$name" "$cache/snapshots/rev/$name"
done
echo secret > "$scratch/secret.safetensors"

paths=$(opened inspect "$cache")
must_lie_in "$paths" "$cache"
grep -q "snapshots/rev/config.json" <<< "$paths" || { echo "strace saw no config.json"; exit 1; }
must_lie_in "$(opened plan "$cache" --out "$scratch/run/plan.json")" "$cache" "$scratch/run"
[ -s "$scratch/run/plan.json" ] || { cat "$scratch/out.txt"; exit 1; }
must_lie_in "$(opened convert "$cache" --plan "$scratch/run/plan.json" --layout packed --out "$scratch/run/model")" "$cache" "$scratch/run"
[ -s "$scratch/run/model/config.json" ] || { cat "$scratch/out.txt"; exit 1; }

# An index that leads out of the directory.
cp -rL "$cache/snapshots/rev" "$scratch/hostile"
sed -i 's|"model-00001-of-[0-9]*.safetensors"|"../secret.safetensors"|' "$scratch/hostile/model.safetensors.index.json"
must_lie_in "$(opened inspect "$scratch/hostile")" "$scratch/hostile"
grep -q "name no file inside the directory" "$scratch/out.txt" || { cat "$scratch/out.txt"; exit 1; }

# A pickle that would run a program.
rm "$scratch"/hostile/*.safetensors "$scratch/hostile/model.safetensors.index.json"
python3 - "$scratch" << 'EOF'
import os, pickle, sys, zipfile
scratch = sys.argv[1]
class Touch:
    def __reduce__(self):
        return os.system, (f"touch {scratch}/canary",)
with zipfile.ZipFile(f"{scratch}/hostile/pytorch_model.bin", "w") as zip:
    zip.writestr("a/data.pkl", pickle.dumps({"a": Touch()}, protocol=2))
pickle.loads(pickle.dumps(Touch(), protocol=2))
assert os.path.exists(f"{scratch}/canary")  # so would it run where pickles are run
os.remove(f"{scratch}/canary")
EOF
must_lie_in "$(opened inspect "$scratch/hostile")" "$scratch/hostile"
grep -q "the pickle names 'posix.system'" "$scratch/out.txt" || { cat "$scratch/out.txt"; exit 1; }
[ ! -e "$scratch/canary" ] || { echo "the pickle ran"; exit 1; }
echo "opened: the model's files, its blobs, what was asked for"
