"""What pyarrow's file systems lack: opening the right one, writes that appear at once, and what their errors mean."""

from __future__ import annotations

import os
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

from depthray.errors import ResourceError, UsageError
from depthray.storage.local import UNFINISHED
from depthray.storage.os_errors import reason, remedy

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

PIECE = 8 << 20  # bytes copied at once
_ATOMIC = ("s3", "gcs", "abfs")  # these show an object only when all of it is written
# Errors that no retry helps against, by what the stores call them.
_PERMANENT = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or give another name",
    "NoSuchBucket": "there is no such bucket; make it, or give another name",
    "ACCESS_DENIED": "access is denied; give credentials that may read and write there",
    "AccessDenied": "access is denied; give credentials that may read and write there",
    "INVALID_ACCESS_KEY_ID": "these credentials are not known there; look at AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the credentials do not fit; look at AWS_SECRET_ACCESS_KEY",
    "UNRECOGNIZED_CLIENT": "the credentials are not known there; look at AWS_ACCESS_KEY_ID",
    "InvalidBucketName": "that is no name of a bucket",
}


class StorageError(ResourceError):
    """Storage that cannot be reached, written or read, and was not for as long as calls are tried again."""


def open_store(url: str) -> tuple[FileSystem, str]:
    """A store by its URL, and the path inside it. StorageError if it cannot be reached with these settings."""
    try:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem, S3FileSystem
    except ImportError:
        raise StorageError(f"{url}: remote folders need pyarrow; pip install pyarrow, or give a local folder") from None
    scheme, path = url.split("://", 1)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    try:
        if scheme == "s3" and endpoint:  # only Amazon can be asked for the region of a bucket
            return S3FileSystem(endpoint_override=endpoint, region=region or "us-east-1"), path
        store, root = FileSystem.from_uri(url)
    except (ArrowException, ValueError) as error:
        raise UsageError(f"{url}: {' '.join(str(error).split())}; give an address such as s3://BUCKET/runs/x") from None
    return store, root


def list_folder(store: FileSystem, root: str, *, deep: bool) -> list[Any]:
    """What a folder holds, with `deep` also below its folders; unfinished objects are left out."""
    from pyarrow.fs import FileSelector

    # A folder of an object store exists only as long as an object is in it: a missing one is an empty one.
    infos = store.get_file_info(FileSelector(root, allow_not_found=True, recursive=deep))
    return [info for info in infos if not info.base_name.startswith(UNFINISHED)]


def put(store: FileSystem, path: str, source: BinaryIO, size: int) -> None:
    """Write an object that appears complete or not at all."""
    if store.type_name in _ATOMIC:
        _stream(store, path, source)
        if (stored := store.get_file_info(path).size) != size:
            raise OSError(f"{stored} bytes instead of {size} arrived")
        return
    # Other file systems show a file while it grows, so it gets its name when it is complete.
    folder = os.path.dirname(path)
    store.create_dir(folder, recursive=True)
    temporary = f"{folder}/{UNFINISHED}{uuid4().hex}"
    _stream(store, temporary, source)
    store.move(temporary, path)


def _stream(store: FileSystem, path: str, source: BinaryIO) -> None:
    with store.open_output_stream(path) as target:
        copyfileobj(source, target, PIECE)


def is_permanent(error: OSError) -> bool:
    """Whether an error stays however often the call is repeated: a missing object, no permission, wrong keys."""
    kinds = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
    return isinstance(error, kinds) or any(name in str(error) for name in _PERMANENT)


def explain(error: OSError) -> str:
    """What went wrong in a store, in short, and what to do."""
    text = " ".join(str(error).split())
    for name, explanation in _PERMANENT.items():
        if name in text:
            return explanation
    if advice := remedy(error):  # of a disk of this machine, or of one that is addressed like a store
        return f"{reason(error)}; {advice}"
    # Messages are long: "When ... : AWS Error ... during PutObject operation: ... Details: ... (Request ID: ...)".
    details = text.split("Details: ")[-1].split("operation: ")[-1].split(" (Request ID")[0]
    return f"{details[:200]}; look at the network, AWS_ENDPOINT_URL and the credentials, then give the command again"
