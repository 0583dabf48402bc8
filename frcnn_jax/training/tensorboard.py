"""TensorBoard's event file, without tensorboardX's writer thread.

That thread dies when the disk is full, and the run would wait for it forever.
"""

import io
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar


class EventFile:
    """A new event file of figures and pictures by step."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Opens the file; TensorBoard prefers it to others from its first step on.

        Args:
          folder: where the file is created.
          first_step: of the file.
        """
        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=first_step, session_log=start))

    def write(
        self,
        step: int,
        values: Mapping[str, float | None],
        pictures: Mapping[str, Image.Image],
    ) -> None:
        """Adds the figures and pictures of a step.

        Args:
          step: counted from 1.
          values: by name; None is left out.
          pictures: by name, RGB.
        """
        numbers = {name: x for name, x in values.items() if x is not None}
        summaries = [scalar(name, value) for name, value in numbers.items()]
        summaries += [_encode(name, picture) for name, picture in pictures.items()]
        for summary in summaries:
            event = Event(step=step, wall_time=time.time(), summary=summary)
            self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


def _encode(name: str, picture: Image.Image) -> Summary:
    """Encodes a picture as JPEG: tensorboardX's PNG would be several times larger."""
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=80)
    image = Summary.Image(
        height=picture.height,
        width=picture.width,
        colorspace=3,  # RGB
        encoded_image_string=content.getvalue(),
    )
    return Summary(value=[Summary.Value(tag=name, image=image)])
