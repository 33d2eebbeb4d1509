"""The rain of every frame as text: lines of JSON, or a CSV table."""

from __future__ import annotations

import csv
import json
import logging
import sys
from contextlib import suppress
from datetime import datetime, timezone
from typing import IO, Literal, TypeAlias

from derain.errors import MediaError

LogForm: TypeAlias = Literal["json", "csv"]
FIELDS = ("time", "stream", "frame", "seconds", "rain", "gated")

log = logging.getLogger(__name__)


class RainLog:
    """One line for each frame, with the fields :data:`FIELDS`.

    ``time`` is that of the line, in UTC; ``seconds`` that of the frame in its file, or of its arrival by a clock that
    began anywhere. Several streams may share one log: a line is written in one piece.

    Args:
        file: opened for text.
        form: ``json``: one object a line; ``csv``: a table whose first line names the columns, with an empty ``rain``
            where it was not measured, and ``gated`` as 0 or 1.
        vital: a log that cannot be written ends the streams; otherwise they go on without it, and ``problem`` is set.
    """

    def __init__(self, file: IO[str], form: LogForm = "json", vital: bool = False) -> None:
        self._file = file
        self._csv = csv.writer(file, lineterminator="\n") if form == "csv" else None
        self._vital = vital
        self.problem: MediaError | None = None
        if self._csv is not None:
            self._csv.writerow(FIELDS)

    def add(self, stream: str, index: int, seconds: float, rain: float | None, gated: bool) -> None:
        """Write the line of a frame; ``rain`` in [0, 1], None where it was not measured.

        Raises:
            MediaError: it cannot be written, and it is vital.
        """
        if self.problem is None:
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            values = (now, stream, index, round(seconds, 4), None if rain is None else round(rain, 4))
            try:
                if self._csv is not None:
                    self._csv.writerow((*values, int(gated)))
                else:
                    self._file.write(json.dumps(dict(zip(FIELDS, (*values, gated), strict=True))) + "\n")
                self._file.flush()
            except OSError as error:
                name = "on the terminal" if self._file is sys.stdout else f"'{getattr(self._file, 'name', '')}'"
                self.problem = MediaError(f"The rain log {name} cannot be written ({error.strerror or error})")
                if not self._vital:
                    log.warning("%s", self.problem)
        if self.problem is not None and self._vital:
            raise self.problem

    def close(self) -> None:
        """Close the file; what could not be written was told already."""
        with suppress(OSError):
            self._file.close()
