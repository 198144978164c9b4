"""The folder of a prepared set: whose it is, what is finished in it, and what a kill left."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Iterator

from simclr_tf.errors import RequestError
from simclr_tf.prepare.parts import write_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Holds the classes too: simclr_tf/data/prepared.py reads it beside the records.
DESCRIPTION = "dataset.json"
_WORK, _REQUEST, _PLAN, _LOCK = "work", "request.json", "plan.json", "lock"


class SetFolder:
    """The folder of a set, with a folder `work` in it until the set is finished.

    Args:
      path: its path.
      request: what the set is made of and how, as JSON holds it.
    """

    def __init__(self, path: str, request: dict):
        self.path = path
        self.work = os.path.join(path, _WORK)
        self._request = request

    def description(self) -> dict | None:
        """Returns the description of the finished set, None if it is not finished.

        Raises:
          RequestError: the folder holds something else, or another set.
        """
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise RequestError(f"--data_dir must be a folder. Received: {self.path}, a file.")
        described = _json(os.path.join(self.path, DESCRIPTION))
        begun = _json(os.path.join(self.work, _REQUEST))
        request = described.get("request", {}) if described else begun
        if request is None:
            self._refuse_foreign()
        elif request != self._request:
            other = [k for k, v in self._request.items() if request.get(k) != v]
            raise RequestError(
                "A set is prepared by one request only. Received: --data_dir="
                f"{self.path}, which was begun with "
                + ", ".join(f"{k} = {request.get(k)!r}, not {self._request[k]!r}" for k in other)
                + ". Give another folder, or delete this one."
            )
        return described

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the work folder, without what a kill left, for this process alone."""
        os.makedirs(self.work, exist_ok=True)
        with open(os.path.join(self.work, _LOCK), "w", encoding="ascii") as lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RequestError(
                        f"One process at a time prepares a set. Received: {self.path}, where "
                        "another one works. Wait for it, or give another folder."
                    ) from error
            for folder in (self.path, self.work):
                for left in glob.glob(os.path.join(glob.escape(folder), "*.partial*")):
                    os.remove(left)
            write_text(os.path.join(self.work, _REQUEST), json.dumps(self._request))
            yield

    def keep_shards_of(self, plan: str) -> None:
        """Deletes finished shards unless they are of this plan, a digest of it."""
        path = os.path.join(self.work, _PLAN)
        if _json(path) != plan:
            for shard in glob.glob(os.path.join(glob.escape(self.path), "*.tfrecord")):
                os.remove(shard)
        write_text(path, json.dumps(plan))

    def finish(self, description: dict) -> None:
        """Writes the description, which makes the set a finished one, and drops the work folder."""
        text = json.dumps({**description, "request": self._request}, indent=1) + "\n"
        write_text(os.path.join(self.path, DESCRIPTION), text)
        self.drop_work()

    def drop_work(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)

    def _refuse_foreign(self) -> None:
        found = sorted(os.listdir(self.path)) if os.path.exists(self.path) else []
        if found and not (found == [_WORK] and self._only_begun()):
            shown = ", ".join(found[:3])
            raise RequestError(
                "--data_dir must be empty or new, or hold the same set begun before. Received: "
                f"{self.path}, which holds {shown}. Give another folder."
            )

    def _only_begun(self) -> bool:
        """Whether the work folder holds no more than what comes before the request in it."""
        return all(n == _LOCK or n.startswith(_REQUEST) for n in os.listdir(self.work))


def _json(path: str):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} must be a file that this tool wrote. Received: {error}. Give another folder."
        ) from error
