"""The registry: versions, aliases, and what served when."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import sqlalchemy as sa

from fastness.core.errors import BadInput, Failure, GateRefused
from fastness.core.files import cache_root, replace_folder, sha256_file, write_bytes
from fastness.registry.database import NOTHING, Database
from fastness.registry.moves import CURRENT, Judged, Move, as_move, earlier, moved, number_at, promoted
from fastness.registry.says import checked_alias, checked_name, moment, now, someone
from fastness.registry.store import Lost, Store
from fastness.registry.tables import about, aliases, moves, uploads, versions
from fastness_runtime import signature

ADDRESS = "FASTNESS_REGISTRY"
"""Environment variable: where the registry is, if not said."""

_DEFAULT, _FILE = "registry", "registry.db"
_MANIFEST = 1  # format of a version's list of files
_NUMBER = re.compile("[0-9]{1,9}")
Files = dict[str, tuple[str, int]]
"""SHA-256 and bytes of files by their names in a bundle."""


@dataclass(frozen=True)
class Version:
    """A bundle under a name, with all that lay beside its core when it was added; it never changes.

    Attributes:
        name, number: ``photos@3`` is number 3 of ``photos``; numbers count from 1.
        bundle: the bundle's id.
        manifest: SHA-256 of the list of its files.
        files, bytes: how many.
        by, note: who added it, and what they said.
        at: when, in microseconds since 1970 (UTC).
        collected: when its files were given up, ``None`` if they are there.
    """

    name: str
    number: int
    bundle: str
    manifest: str
    files: int
    bytes: int
    by: str
    note: str
    at: int
    collected: int | None

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


class Registry:
    """A registry.

    Args:
        address: a folder, or ``postgresql://user@host/database``; default: ``FASTNESS_REGISTRY``, else ``registry``.
        store: where files are kept, a folder or a URL that fsspec knows; said once, when the registry is made. May be
            left out for a folder.
        upgrade: bring the tables of an older version up to date.
        create: make a new one where there is none.

    Raises:
        BadInput: it is of another version, or kept elsewhere; or there is none.
    """

    def __init__(
        self,
        address: str | Path | None = None,
        store: str | None = None,
        *,
        upgrade: bool = False,
        create: bool = True,
    ) -> None:
        self.address = str(address or os.environ.get(ADDRESS) or _DEFAULT)
        self.folder: Path | None = None  # where it lies, if it is a folder
        own = None
        if "://" in self.address:
            self.database = Database(self.address, upgrade, create)
            self.shown = self.database.shown
        else:
            folder = Path(self.address).absolute()
            if not create and not (folder / _FILE).exists():
                raise BadInput(f"{self.address}: {NOTHING}")
            folder.mkdir(parents=True, exist_ok=True)
            self.folder = folder
            self.database = Database(f"sqlite:///{folder / _FILE}", upgrade, create)
            self.shown, own = self.address, str(folder / "store")
        try:
            self.store = Store(self._kept_at(store, own))
        except BaseException:
            self.close()
            raise

    def _kept_at(self, asked: str | None, own: str | None) -> str:
        """Return where files are kept: as was said first, else in the registry's own folder."""
        if asked is not None and "://" not in asked:
            asked = str(Path(asked).absolute())
        wanted = sa.select(about.c.value).where(about.c.key == "store")
        with self.database.reading() as connection:
            stated = connection.execute(wanted).scalar()
        if stated is None and asked is not None:
            with self.database.writing() as connection:
                stated = connection.execute(wanted).scalar()
                if stated is None and own is not None and _any(connection):
                    stated = own  # it was made without --store
                if stated is None:
                    connection.execute(about.insert().values(key="store", value=asked))
                    stated = asked
        if asked not in (None, stated):
            raise BadInput(f"{self.shown}: keeps its files in {stated}, not in {asked}; leave --store out")
        if stated is None and own is None:
            raise BadInput(f"{self.shown}: is a new registry; say where files are kept (--store)")
        return str(stated or own)

    def close(self) -> None:
        """Close the database's connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- versions ---------------------------------------------------------------------------------------------------

    def add(self, bundle: str | Path, name: str, *, by: str | None = None, note: str = "") -> Version:
        """Add a bundle as the next version of a name; the very same files again are the version that they were.

        Args:
            bundle: its folder, or a run's that has one; everything in it goes along.
            name: small letters, digits, ``.``, ``_`` and ``-``.
            by, note: who adds it (default: the user), and what they say.

        Raises:
            BadInput: no whole bundle is there, a link is in it or a file that other systems name otherwise, or the name
                is none.
            GateRefused: keys are trusted (``FASTNESS_TRUSTED_KEYS``), and none has signed it.
        """
        from fastness.bundle.whole import core_of, verified

        checked_name(name)
        folder = _bundle_in(Path(bundle))
        if trusted := signature.trusted(None):
            verified(folder, trusted)
        core = core_of(folder)
        paths = _files(folder)
        with self.uploading() as claim:
            files: dict[str, dict[str, Any]] = {}
            for file, path in paths.items():
                digest, size = self.store.add(path)
                files[file] = {"sha256": digest, "bytes": size}
            if any(files[file]["sha256"] != digest for file, digest in core["core"].items()):
                raise Failure(f"{folder}: changed while it was read; add it again when nobody writes it")
            stated = {"format": _MANIFEST, "bundle": core["id"], "files": files}
            manifest, _ = self.store.add(json.dumps(stated, sort_keys=True, indent=1).encode())
            with self.database.writing() as connection:
                self._release(connection, claim)
                row = {
                    "name": name,
                    "bundle": core["id"],
                    "manifest": manifest,
                    "files": len(files),
                    "bytes": sum(known["bytes"] for known in files.values()),
                    "by": by or someone(),
                    "note": note,
                    "at": now(),
                }
                return _entered(connection, row)

    @contextmanager
    def uploading(self) -> Iterator[str]:
        """Keep `collect` from taking files away that no row speaks of yet, until they are released or given up."""
        claim = uuid.uuid4().hex
        with self.database.writing() as connection:
            connection.execute(uploads.insert().values(id=claim, at=now()))
        try:
            yield claim
        finally:
            with self.database.writing() as connection:
                connection.execute(uploads.delete().where(uploads.c.id == claim))

    def _release(self, connection: sa.Connection, claim: str) -> None:
        """End a claim in the transaction that makes rows speak of the files."""
        if connection.execute(uploads.delete().where(uploads.c.id == claim)).rowcount != 1:
            raise Failure(f"{self.shown}: the upload took so long that it was given up; add it again")

    def versions(self, name: str | None = None) -> list[Version]:
        """Return the versions of a name, or all, in order."""
        wanted = sa.select(versions).order_by(versions.c.name, versions.c.number)
        wanted = wanted if name is None else wanted.where(versions.c.name == name)
        with self.database.reading() as connection:
            return [as_version(row) for row in connection.execute(wanted)]

    def find(self, spec: str) -> Version:
        """Return the version that ``NAME@NUMBER`` or ``NAME@ALIAS`` is now.

        Raises:
            BadInput: there is none.
        """
        name, mark, which = spec.partition("@")
        if not mark or not which:
            raise BadInput(f"'{spec}': say which version: {name or 'NAME'}@3, or {name or 'NAME'}@production")
        with self.database.reading() as connection:
            number = int(which) if _NUMBER.fullmatch(which) else number_at(connection, name, which)
            return self._numbered(connection, name, number, spec)

    def _numbered(self, connection: sa.Connection, name: str, number: int | None, spec: str) -> Version:
        row = connection.execute(
            sa.select(versions).where(versions.c.name == name, versions.c.number == number)
        ).first()
        if row is None:
            named = sa.select(aliases.c.alias).where(aliases.c.name == name, aliases.c.number.is_not(None))
            known = sa.select(versions.c.name).distinct().order_by(versions.c.name).limit(20)
            here, there = (connection.execute(wanted).scalars().all() for wanted in (named, known))
            said = f"aliases of {name}: {', '.join(here)}" if here else f"names: {', '.join(there) or 'none'}"
            raise BadInput(f"{self.shown}: no {spec} here; {said}")
        return as_version(row)

    def _with_files(self, version: Version) -> Version:
        if version.collected is not None:
            raise BadInput(f"{version}: its files were given up at {moment(version.collected)}; add its bundle again")
        return version

    def files(self, version: Version) -> dict[str, tuple[str, int]]:
        """Return the SHA-256 and the bytes of every file of a version, by its name in the bundle.

        Raises:
            Lost: its list of files is missing from the store, or was changed there.
            Failure: a name leads elsewhere.
        """
        return _plain(version, listed(version, self.store.read(version.manifest)))

    def pull(self, spec: str, folder: str | Path | None = None) -> Path:
        """Return a folder with the bundle that ``NAME@NUMBER`` or ``NAME@ALIAS`` is, verified file by file.

        Args:
            spec: see `find`.
            folder: where to write it; default: once in the cache, not to be written to. What was damaged there is
                written anew.

        Raises:
            BadInput: there is no such version, or its files were given up.
            Failure: a file is missing from the store, or was changed there.
        """
        version = self._with_files(self.find(spec))
        if folder is None:
            return self._cached(version)
        target = Path(folder)
        if target.exists() and any(target.iterdir()):
            raise BadInput(f"{target}: is there already; choose another folder")
        self._write(self.files(version), target)
        return target

    def _cached(self, version: Version) -> Path:
        """Return a version's folder in the cache; while it is whole the store need not be reached."""
        target = cache_root() / "registry" / version.manifest
        stated = target.with_name(f"{version.manifest}.json")  # named by its own hash, too
        if not (stated.is_file() and sha256_file(stated) == version.manifest):
            write_bytes(stated, self.store.read(version.manifest))
        files = _plain(version, listed(version, stated.read_bytes()))
        if not _whole(target, files):
            self._write(files, target)
        return target

    def _write(self, files: Files, target: Path) -> None:
        def fill(temporary: Path) -> None:
            for name, (digest, _) in files.items():
                self.store.fetch(digest, temporary / PurePosixPath(name))

        replace_folder(target, fill)

    # -- aliases ----------------------------------------------------------------------------------------------------

    def now_at(self, name: str, alias: str) -> int | None:
        """Return the number of the version that an alias names, ``None`` for none."""
        with self.database.reading() as connection:
            return number_at(connection, name, alias)

    def promote(
        self,
        spec: str,
        alias: str,
        *,
        why: str,
        by: str | None = None,
        gate: Judged | None = None,
        override: bool = False,
        expected: int | None = CURRENT,
        leaving: str | None = None,
    ) -> Move:
        """Let an alias name a version.

        Args:
            spec: ``NAME@NUMBER`` or ``NAME@ALIAS``.
            alias: small letters, digits, ``.``, ``_`` and ``-``, not digits alone.
            why: what is said of it.
            by: who does it; default: the user.
            gate: what a gate said; see `promotion.judge`.
            override: do it without a gate's yes; ``why`` must say something.
            expected: number of the version that the alias names now; default: what the gate compared with, or what it
                names when this is called.
            leaving: an alias that names the version while it is on trial; whatever the gate says, it names nothing
                afterwards. Both aliases are moved, or none.

        Raises:
            GateRefused: no gate, or one that said no, and no override. A no is written into the log.
            Failure: an alias was moved by somebody else.
            BadInput: there is no such version, or its files were given up.
        """
        version = self.find(spec)
        checked_alias(alias)
        if expected == CURRENT:
            expected = gate.against if gate else self.now_at(version.name, alias)
        if gate is not None and gate.candidate != version.manifest:
            raise BadInput(f"{version}: the gate judged another version; judge this one")
        passed = gate is not None and gate.passed
        if override and not why.strip():
            raise BadInput("an override is recorded with its reason; say why (--why)")
        going = passed or override
        with self.uploading() as claim:
            kept = {name: self.store.add(content)[0] for name, content in gate.evidence.items()} if gate else {}
            with self._turn(version.name, alias, expected) as (connection, before):
                self._release(connection, claim)
                self._with_files(self._numbered(connection, version.name, version.number, spec))
                if leaving is not None:
                    _expected(connection, version.name, leaving, version.number)
                row: dict[str, Any] = {"name": version.name, "alias": alias, "before": before}
                row |= {"by": by or someone(), "why": why}
                row["gate"] = gate.recorded(kept) if gate else None
                if going:
                    row |= {"number": version.number, "what": "promote", "override": not passed}
                elif gate is not None:
                    row |= {"number": before, "what": "refuse", "override": False}
                else:
                    raise GateRefused(f"{version}: no gate has judged it; give a policy (--gate), or override it")
                move = moved(connection, row)
                if leaving is not None:
                    moved(connection, _removal(version.name, leaving, version.number, why, by))
        if not going:
            assert gate is not None
            raise GateRefused(f"{version} stays out of {alias}: {gate.said}")
        return move

    def rollback(
        self,
        name: str,
        alias: str,
        *,
        why: str,
        by: str | None = None,
        to: int | None = None,
        expected: int | None = CURRENT,
    ) -> Move:
        """Let an alias name a version again that it named before, by which it was let in then.

        Args:
            name, alias: of what.
            why, by: see `promote`.
            to: number of that version; default: the one before the one that was promoted last. A second rollback goes
                further back, not forth again.
            expected: see `promote`.

        Raises:
            BadInput: there is nothing to go back to.
            Failure: the alias was moved by somebody else.
        """
        if expected == CURRENT:
            expected = self.now_at(name, alias)
        with self._turn(name, alias, expected) as (connection, before):
            entered, back = promoted(connection, name, alias)
            to = earlier(back, before) if to is None else to
            if to is None or to not in entered:
                asked = f"number {to}" if to is not None else "an earlier version"
                raise BadInput(f"{name}@{alias}: {asked} has not served there; promote one instead")
            self._with_files(self._numbered(connection, name, to, f"{name}@{to}"))
            past = entered[to]
            row: dict[str, Any] = {"name": name, "alias": alias, "before": before, "number": to, "what": "rollback"}
            row |= {"by": by or someone(), "why": why, "gate": {"earlier": past.id}, "override": past.override}
            return moved(connection, row)

    def remove(self, name: str, alias: str, *, why: str, by: str | None = None, expected: int | None = CURRENT) -> Move:
        """Let an alias name nothing; what it named stays in the log. For the arguments see `promote`."""
        if expected == CURRENT:
            expected = self.now_at(name, alias)
        with self._turn(name, alias, expected) as (connection, before):
            if before is None:
                raise BadInput(f"{name}@{alias}: names nothing")
            return moved(connection, _removal(name, alias, before, why, by))

    @contextmanager
    def _turn(self, name: str, alias: str, expected: int | None) -> Iterator[tuple[sa.Connection, int | None]]:
        """Yield a connection while nobody else writes, and what an alias names; refuse if that is not expected."""
        with self.database.writing() as connection:
            before = _expected(connection, name, alias, expected)
            yield connection, before

    # -- history ----------------------------------------------------------------------------------------------------

    def log(self, name: str | None = None, alias: str | None = None, limit: int | None = None) -> list[Move]:
        """Return the moves of an alias, of a name or of all, the newest first."""
        wanted = sa.select(moves).order_by(moves.c.id.desc()).limit(limit)
        for column, value in ((moves.c.name, name), (moves.c.alias, alias)):
            wanted = wanted if value is None else wanted.where(column == value)
        with self.database.reading() as connection:
            return [as_move(row) for row in connection.execute(wanted)]

    def serving(self, name: str, at: int | None = None) -> dict[str, Move]:
        """Return what each alias of a name named, by alias: the move that had made it so.

        Args:
            name: of the versions.
            at: moment in microseconds since 1970 (UTC); default: now.
        """
        with self.database.reading() as connection:
            known = connection.execute(sa.select(aliases.c.alias).where(aliases.c.name == name)).scalars().all()
            found = {}
            for alias in sorted(known):
                wanted = sa.select(moves).where(moves.c.name == name, moves.c.alias == alias, moves.c.what != "refuse")
                wanted = wanted if at is None else wanted.where(moves.c.at <= at)
                row = connection.execute(wanted.order_by(moves.c.at.desc()).limit(1)).first()
                if row is not None and row.number is not None:
                    found[alias] = as_move(row)
            return found


def _expected(connection: sa.Connection, name: str, alias: str, expected: int | None) -> int | None:
    """Return what an alias names; refuse if that is not expected."""
    before = number_at(connection, name, alias)
    if before == expected:
        return before
    same = sa.select(moves).where(moves.c.name == name, moves.c.alias == alias)
    last = connection.execute(same.order_by(moves.c.id.desc()).limit(1)).first()
    told = f", moved by {last.by} at {moment(last.at)}" if last else ""
    raise Failure(
        f"{name}@{alias}: is {_called(before)} now{told}, not {_called(expected)} any more; look again, then decide"
    )


def _removal(name: str, alias: str, before: int, why: str, by: str | None) -> dict[str, Any]:
    """Return the move by which an alias names nothing."""
    row: dict[str, Any] = {"name": name, "alias": alias, "before": before, "number": None, "what": "remove"}
    return row | {"by": by or someone(), "why": why, "gate": None, "override": False}


def _bundle_in(folder: Path) -> Path:
    inner = folder / "bundle"
    return inner if not (folder / "bundle.json").exists() and (inner / "bundle.json").exists() else folder


def _files(folder: Path) -> dict[str, Path]:
    """Return every file of a bundle by its name there, in order; what is being written at the moment is none of it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise BadInput(f"{path}: is a link; a version holds files alone, put the file itself there")
        if path.is_file() and not (path.name.startswith(".") and path.name.endswith(".tmp")):
            name = path.relative_to(folder).as_posix()
            if not signature.plain(name):
                raise BadInput(f"{folder}: the name {name!r} means something else elsewhere; rename the file")
            found[name] = path
    return found


def listed(version: Version, content: bytes) -> Files:
    """Return the files that a version's list says.

    Raises:
        Lost: it is no list.
    """
    try:
        stated = json.loads(content)
        return {str(name): (str(f["sha256"]), int(f["bytes"])) for name, f in stated["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Lost(f"{version}: its list of files is none ({error}); add its bundle again") from None


def _plain(version: Version, files: Files) -> Files:
    """Return files if each name leads to one place below a folder; an earlier fastness took others, too."""
    for name in files:
        if not signature.plain(name):
            raise Failure(f"{version}: its file {name!r} means something else elsewhere; rename it and add the bundle")
    return files


def _whole(folder: Path, files: Files) -> bool:
    """Whether files are in a folder, every byte of them."""
    places = {folder / PurePosixPath(name): known for name, known in files.items()}
    if not all(place.is_file() and place.stat().st_size == size for place, (_, size) in places.items()):
        return False
    return all(sha256_file(place) == digest for place, (digest, _) in places.items())


def _any(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(versions.c.id).limit(1)).first() is not None


def _entered(connection: sa.Connection, row: dict[str, Any]) -> Version:
    same = sa.select(versions).where(versions.c.name == row["name"], versions.c.manifest == row["manifest"])
    found = connection.execute(same).first()
    if found is None:
        last = sa.select(sa.func.max(versions.c.number)).where(versions.c.name == row["name"])
        row["number"] = (connection.execute(last).scalar() or 0) + 1
        connection.execute(versions.insert().values(**row))
    elif found.collected is not None:  # its files are there again
        connection.execute(versions.update().where(versions.c.id == found.id).values(collected=None))
    return as_version(connection.execute(same).one())


def as_version(row: Any) -> Version:
    """Return the version that a row of the table is."""
    return Version(**{name: getattr(row, name) for name in Version.__dataclass_fields__})


def _called(number: int | None) -> str:
    return "nothing" if number is None else f"version {number}"
