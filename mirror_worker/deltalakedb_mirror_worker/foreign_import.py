"""Takes foreign commits above SQL's head into the lake, through the log, each as exactly the version that it is."""

from __future__ import annotations

import time

from deltalakedb.catalog import MirrorProgress
from deltalakedb.deltalog.commits import read_commit
from deltalakedb.errors import TxnLogImportError
from deltalakedb.events import ImportedContent
from deltalakedb.importing.chunks import cut
from deltalakedb.importing.plan import Kind, Step
from deltalakedb.importing.roots import Roots
from deltalakedb.importing.sending import Sending
from deltalakedb.importing.survey import Survey
from deltalakedb.importing.times import version_times
from deltalakedb.session import Session

from .foreign import ForeignCommits
from .places import Place


def import_foreign(
    session: Session, place: Place, table: MirrorProgress, foreign: ForeignCommits, *, dry_run: bool
) -> None:
    """Publish the commits beyond SQL's head as events, and wait until the committer has taken them.

    Each gets a commit of the lake. A dry run only looks whether they could be taken. Raises `TxnLogImportError` for what
    cannot, `TxnLogDeltaLogError` for what cannot be read, `TxnLogRejectedError` if the committer refuses one, because the
    table got a version of its own meanwhile: then only superseding is left.
    """
    with session.catalog() as catalog:
        info = catalog.table(table_id=table.table_id, version=table.version)
    survey = Survey(info.location, Roots(info.location), protocol=info.protocol, metadata=info.metadata)
    for version, file in foreign.beyond.items():
        actions = read_commit(place.store, file, version)
        survey.version(Step(Kind.ADOPTION, version), actions, path=file.path, file_ms=file.time_ms)
    if survey.problems:
        raise TxnLogImportError(f"what is foreign in {place.uri} cannot be adopted: {survey.problems[0]}")
    now_ms = int(time.time() * 1000)
    times = version_times(survey.stamps, after_ms=info.time_ms, started_ms=now_ms, now_ms=now_ms)
    if dry_run:
        return
    sending = Sending(session, table.table_id, lambda version: None)
    sending.begin(list(foreign.beyond))
    for version, file in foreign.beyond.items():
        content = ImportedContent(
            import_id=table.table_id,
            table_name=table.name,
            location=table.location,
            version=version,
            time_ms=times[version],
            file_time_ms=file.time_ms,
            kind=Kind.ADOPTION.value,
            last=version == max(foreign.beyond),
        )
        with cut(content, read_commit(place.store, file, version)) as chunks:
            sending.send(content, chunks)
            sending.drain()
