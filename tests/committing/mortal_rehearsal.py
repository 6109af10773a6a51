"""The child process that rehearses events, to which the same happens as to its committer: PLACE ACT TRANSACTION."""

from __future__ import annotations

import sys

from deltalakedb_committer.rehearsal import main
from tests.committing.mortal import arm

if __name__ == "__main__":
    arm(sys.argv[1], sys.argv[2], over=sys.argv[3])
    main()
