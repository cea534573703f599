"""Packages of scripts/corpus: their list, how they come from apt or the cache, what is read out of them."""
import fnmatch
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tomllib

import corpus_text

KEYS = {"name", "kind", "format", "files", "without", "cut", "most"}


class Refusal(Exception):
    """Something the user can mend."""


def say(text):
    print(f"[corpus] {text}", file=sys.stderr, flush=True)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path):
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def packages_of(file):
    try:
        packages = tomllib.loads(file.read_text(encoding="utf-8")).get("package", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Refusal(f"{file}: {error}") from None
    for number, package in enumerate(packages):
        missing = {"name", "kind", "format", "files"} - package.keys()
        unknown = package.keys() - KEYS
        known = corpus_text.READERS.keys() | {"dictd"}
        if missing or unknown or package["format"] not in known:
            raise Refusal(f"{file}: package {number} ({package.get('name', 'no name')}) lacks {sorted(missing)}, has unknown "
                          f"{sorted(unknown)}, format {package.get('format')}; formats: {', '.join(sorted(known))}")  # fmt: skip
    return packages


# ---- packages


def offered(names):
    """What apt would download: {name: {Version, SHA256, ...}}."""
    if not shutil.which("apt-cache"):
        return {}
    shown = subprocess.run(["apt-cache", "show", "--no-all-versions", *names], capture_output=True, text=True, check=False)
    found = {}
    for block in shown.stdout.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(" "))
        if "Package" in fields:
            found.setdefault(fields["Package"], fields)
    return found


def cached(cache, name):
    """Newest file of a package in the cache."""
    return max(cache.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime_ns, default=None)


def download(cache, name, offer):
    """The file of the offered version, from the cache or from apt; and apt's words where it did not come."""
    version = offer["Version"].replace(":", "%3a")
    file = cache / f"{name}_{version}_{offer['Architecture']}.deb"
    if file.exists() and sha256_of_file(file) == offer["SHA256"]:
        return file, None
    say(f"downloading {file.name}, {int(offer['Size']) / 1e6:.1f} MB")
    command = ["apt-get", "-q", "download", f"{name}={offer['Version']}"]
    done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
    if done.returncode or not file.exists() or sha256_of_file(file) != offer["SHA256"]:
        file.unlink(missing_ok=True)
        faults = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        return None, " ".join(faults)[:300] or f"{file.name} did not come as apt's list says"
    return file, None


def fetch(packages, cache, offline):
    """A file for each package that can be had, and notes on the others."""
    names = [package["name"] for package in packages]
    offers = {} if offline else offered(names)
    files, missing, words = {}, [], ""
    for name in names:
        file, complaint = download(cache, name, offers.pop(name)) if name in offers else (None, None)
        if complaint and "404" not in complaint:
            offers.clear()  # no network: it would be no other for the rest
        words = words or complaint or ""
        old = None if file else cached(cache, name)
        if old and not offline:
            say(f"apt gives no {name}: taking {old.name} of the cache")
        if file or old:
            files[name] = file or old
        else:
            missing.append(name)
    if not files:
        raise Refusal(f"none of {len(names)} packages can be had: {words or 'apt knows none of them'}; is there a network? "
                      f"run apt-get update, or put .deb files into {cache}")  # fmt: skip
    if missing:
        say(f"left out, for apt gives none: {', '.join(missing)}{'; ' + words if words else ''}")
    return files, missing


# ---- what a package holds


def members(deb, wanted):
    """Files of a package by path, of those that `wanted` says; of a link where it points to."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if wanted(name) and (member.isfile() or member.issym()):
                        yield name, archive.extractfile(member).read() if member.isfile() else member.linkname
            process.stdout.read()
        except tarfile.TarError:
            process.kill()
    if process.returncode:
        raise Refusal(f"{deb.name} is no package that dpkg-deb reads; remove it from the cache")


def matches(package, name):
    fits = lambda key: any(fnmatch.fnmatchcase(name, pattern) for pattern in package.get(key, []))  # noqa: E731
    return fits("files") and not fits("without")


def licence_of(name, found):
    """The text of a package's copyright file; where its folder or the file is a link, the package that has it."""
    folder = f"usr/share/doc/{name}"
    whole, file = found.pop(folder, None), found.pop(f"{folder}/copyright", b"")
    if isinstance(file, bytes):
        return {"licence": corpus_text.decoded(file), "licence_of": whole.rpartition("/")[2] if whole else name}
    return {"licence": "", "licence_of": pathlib.PurePath(file).parent.name}


def read_package(package, deb):
    """Its fields, its copyright file, and the prose of its files in the order of their paths."""
    folder = f"usr/share/doc/{package['name']}"
    beside = {pattern.replace(".index", ".dict.dz") for pattern in package["files"] if package["format"] == "dictd"}
    wanted = {folder, f"{folder}/copyright"} | beside
    found = dict(members(deb, lambda name: name in wanted or matches(package, name)))
    fields = subprocess.run(["dpkg-deb", "-f", str(deb), "Version", "Architecture"], capture_output=True, text=True, check=True)
    version, architecture = (line.split(": ", 1)[1] for line in fields.stdout.splitlines())
    yield {"package": package["name"], "version": version, "architecture": architecture, "deb": deb.name,
           "sha256": sha256_of_file(deb), **licence_of(package["name"], found)}  # fmt: skip
    found = {name: data for name, data in found.items() if isinstance(data, bytes)}
    for name, data in sorted(found.items()):
        if name in beside:
            continue
        companion = found.get(name.replace(".index", ".dict.dz"))
        prose = corpus_text.paragraphs_of(package["format"], name, data, companion)
        documents = list(corpus_text.pieces(prose)) if package.get("cut") else [prose]
        yield {"file": name, "sha256": sha256(data if companion is None else companion), "documents": documents}
