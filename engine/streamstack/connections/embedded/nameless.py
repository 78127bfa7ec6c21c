"""A user whom no /etc/passwd names, as containers have them, and initdb, which wants a name and makes no use of it.

Part of the launcher: the standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Both answer with an entry of /etc/passwd, the second with the first there is; and their names are as long.
_ASKED: Final = b"\0getpwuid\0"
_INSTEAD: Final = b"\0getpwent\0"
#: The programs that ask: initdb, and postgres as initdb runs it. A server that runs does not.
_PROGRAMS: Final[Sequence[str]] = ("initdb", "postgres")


def copy_programs(folder: Path, into: Path) -> Path | None:
    """Copy the programs that make a database so that any name will do; return the folder to run them from.

    What they look for beside themselves is linked to. None where they are not as expected. Raises OSError.
    """
    contents = {name: (folder / name).read_bytes() for name in _PROGRAMS}
    if any(content.count(_ASKED) != 1 for content in contents.values()):
        return None
    home = folder.parent
    copies = into / home.parent.name / home.name / folder.name
    copies.mkdir(parents=True)
    for beside in home.iterdir():
        if beside.name != folder.name:
            copies.with_name(beside.name).symlink_to(beside)
    # The libraries that a wheel brings along lie beside the package (auditwheel).
    for libraries in home.parents[1].glob(f"{home.parent.name}.libs"):
        (into / libraries.name).symlink_to(libraries)
    for name, content in contents.items():
        (copies / name).write_bytes(content.replace(_ASKED, _INSTEAD))
        (copies / name).chmod(0o700)
    return copies
