"""`folder:PATH`: every image file below a folder, however deep.

`folder_splits` finds the folder of the split, `folder_scan` its images, and `folder_classes` their
classes. Whatever is left out is counted, and whatever is assumed is said.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from simclr_tf.data import folder_splits
from simclr_tf.data.folder_classes import classes_of
from simclr_tf.data.folder_scan import Listing, extensions, list_images
from simclr_tf.data.source import FileSource, counted
from simclr_tf.errors import RequestError
from simclr_tf.names import as_text, listed, shown


def open_folder(path: str, split: str, follow_links: bool = False) -> FileSource:
    """Opens the images below `path/split`, or below `path` if it has no folders of splits.

    An image's class is the first folder of its path from there, if there are at least two.

    Args:
      path: the folder of images.
      split: the name of a folder in it.
      follow_links: whether to follow links that lead out of the folder.

    Raises:
      RequestError: the folder or the split does not exist, the split lies outside, or there is no
        image.
    """
    data = pathlib.Path(os.path.expanduser(path))
    if not data.is_dir():
        raise RequestError(
            f"The folder of images must exist. Received: folder:{shown(path)}. Give it as "
            "--data_dir or as data.source = 'folder:PATH'."
        )
    root = folder_splits.split_folder(data, split, follow_links)
    listing = list_images(str(root), str(data), follow_links)
    if not listing.files:
        raise RequestError(_nothing_found(root, listing))
    if split == folder_splits.WHOLE and root == data:
        folder_splits.refuse_deeper_splits(data, listing.files)
    classes = classes_of(listing.files, folder_splits.training_classes(data, root))
    stray = {"images beside the folders of classes": len(classes.stray)} if classes.stray else {}
    above = "" if str(root) == "." else os.path.join(root, "")
    unread = _unread(root, listing.files) if classes.names else []
    return FileSource(
        name=as_text(f"folder:{root}"),
        num_examples=len(classes.files),
        class_names=classes.names,
        paths=[above + file for file in classes.files],
        labels=classes.labels,
        left_out=listing.left_out | stray,
        notes=[*_followed(listing), *_beside(data, root), *unread, *classes.notes],
    )


def _nothing_found(root: pathlib.Path, listing: Listing) -> str:
    message = (
        f"No image found below {shown(str(root))}. Files must end in "
        f"{', '.join(sorted(extensions()))}."
    )
    if listing.left_out:
        message += f" Left out: {counted(listing.left_out)}."
    if listing.outside:
        link, target = listing.outside[0]
        to_folders = sum(os.path.isdir(target) for _, target in listing.outside)
        kinds = {
            "links to folders": to_folders,
            "links to files": len(listing.outside) - to_folders,
        }
        above = os.path.commonpath([os.path.dirname(target) for _, target in listing.outside])
        message += (
            f" {counted(kinds)} lead outside, such as {shown(link)} to {shown(target)}: give the "
            f"folder that they lead to as the data, such as folder:{shown(above)}, or bind "
            "data.follow_links = True."
        )
    return message


def _followed(listing: Listing) -> list[str]:
    count = listing.followed
    return [f"followed {count:,} link{'s' if count > 1 else ''}"] if count else []


def _unread(root: pathlib.Path, files: Sequence[str]) -> list[str]:
    """Returns a note on folders beside the classes of which no image is read."""
    read = {file.partition("/")[0] for file in files}
    missing = [name for name in folder_splits.folders_of(root) if name not in read]
    return [f"no image is read of {listed(missing)}"] if missing else []


def _beside(data: pathlib.Path, root: pathlib.Path) -> list[str]:
    """Returns a note on folders beside that of the split, which may be classes."""
    if root.parent != data:
        return []
    others = [name for name in folder_splits.folders_of(data) if not folder_splits.is_split(name)]
    return [f"only {shown(root.name)} is read, not {listed(others)} beside it"] if others else []
