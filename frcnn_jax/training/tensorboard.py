"""TensorBoard's event file, without the thread that tensorboardX writes it with.

That thread dies when the disk is full, and a run that goes on waits for it forever.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class EventFile:
    """A new file of numbers by step."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Opens the file; TensorBoard then hides what others have from a step on."""
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=first_step, session_log=start))

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds the numbers of a step."""
        for name, value in values.items():
            if value is not None:
                summary = scalar(name, value)
                event = Event(step=step, wall_time=time.time(), summary=summary)
                self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
