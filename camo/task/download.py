"""Downloads that can be resumed."""

import http.client
import re
import reprlib
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from camo import CamoError
from camo.photos.files import as_camo_error

TIMEOUT_S = 60  # without a byte from the server


def fetch(url: str, path: Path) -> None:
    """Download ``url`` to ``path`` by way of ``path.part``, going on where an earlier, broken download left one.

    Raises:
        CamoError: no connection, a refusal, no announced size to check against, a transfer that ended early (``path.part`` stays, for the
            next call), or a full disk.
    """
    part = path.with_name(f"{path.name}.part")
    errors = (OSError, http.client.HTTPException, ValueError)  # urllib's own errors are OSErrors
    with as_camo_error(f"{url}: not fetched to {part}", *errors):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The last byte is asked for again, so that a part that is already whole draws an answer and not "416 range not satisfiable".
        start = max(part.stat().st_size - 1, 0) if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        with _answer(request, part) as response:
            start, total = _range_sent(response, start)
            with part.open("ab") as file:
                file.truncate(start)
                file.seek(start)
                with tqdm.wrapattr(file, "write", total=total, initial=start, desc=path.name, disable=None) as sink:
                    shutil.copyfileobj(response, sink, 1 << 20)
        if (size := part.stat().st_size) != total:
            raise CamoError(f"{url}: the connection ended after {size} of {total} bytes; run again to go on from there")
        part.replace(path)


def _answer(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise CamoError(f"{part}: longer than {request.full_url}; delete it to begin again") from None
        raise


def _range_sent(response: http.client.HTTPResponse, start: int) -> tuple[int, int]:
    """Return the byte that the answer begins with and the size of the whole file."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        sent = response.headers.get("Content-Range", "")
        if not (match := re.fullmatch(rf"bytes {start}-\d+/(\d+)", sent)):
            raise CamoError(f"{response.url}: asked for the bytes from {start} on, the server sent {reprlib.repr(sent)}")
        return start, int(match[1])
    if response.length is None:
        raise CamoError(f"{response.url}: the server does not announce a size to check the download against")
    return 0, response.length  # the server ignores ranges: from the beginning
