"""Existing Delta tables come into a lake: looked at (`source`, `neighbours`, `survey`), planned (`plan`, `times`), published
through the log (`importer`, `chunks`, `sending`), and taken over (`cutover`, `adoption`)."""

from __future__ import annotations

from collections.abc import Sequence

from deltalakedb.errors import TxnLogImportError
from deltalakedb.session import Session

from .cutover import GRACE_SECONDS, Cutover
from .importer import Importer, Options
from .neighbours import checked_place
from .plan import until
from .report import ImportReport, Progress, Watch, Writer
from .source import open_source

__all__ = ["GRACE_SECONDS", "ImportReport", "Progress", "Watch", "Writer", "import_table"]


def import_table(
    session: Session,
    name: str,
    source: str,
    *,
    up_to_version: int | None = None,
    allow_roots: Sequence[str] = (),
    force: bool = False,
    cutover: bool = True,
    dry_run: bool = False,
    grace: float = GRACE_SECONDS,
    watch: Watch = lambda progress: None,
) -> ImportReport:
    """Import the table at `source` as `name`, as `Lake.import_table` says."""
    place = checked_place(session, name, open_source(source, session.storage))
    cutover = cutover and up_to_version is None
    options = Options(allow_roots=allow_roots, force=force, cutover=cutover)
    importer = Importer(session, name, place, options, watch)
    found = importer.found
    if found is not None and found.state == "RELEASED":
        raise TxnLogImportError(
            f"table {name!r} was released here: drop it (lake.act('drop', table={name!r})), then import it again"
        )
    if found is not None and found.state != "IMPORTING":
        return importer.finished(found)
    taking = Cutover(session, place, importer, grace=grace, watch=watch)
    _, listing = taking.look()
    if up_to_version is not None:
        if found is not None and found.version is not None and up_to_version < found.version:
            raise TxnLogImportError(
                f"the lake has version {found.version} of {name!r} already, which is above {up_to_version}: ask for that "
                f"or a later one, or give the import up (lake.act('drop', table={name!r})) and begin again"
            )
        listing = until(listing, up_to_version)
    importer.read(listing)
    if dry_run:
        return importer.planned()
    importer.refuse()
    importer.publish(listing)
    importer.verify()
    if not cutover:
        return importer.report("imported")
    return importer.report("adopted", adopted=taking.run())
