"""Short forms of the operations on pictures, jobs and results of one database."""

from __future__ import annotations

from sqlalchemy import func, select

from pipeline.service import arrivals, job_queue, results
from pipeline.service.arrivals import Arrival
from pipeline.service.results import NewResult

RESULT = NewResult(-1, "ok", "positive", "hand", 0.9, {"status": "ok"}, {"answer": "positive"})


class StoredPictures:
    """Short forms of the operations on one database."""

    def __init__(self, database, blobs, engine):
        self.database, self.blobs, self.engine = database, blobs, engine

    def receive(self, content=b"a", *, key=None, source="http", sender="s", name="a.png"):
        return self.register(self.blobs.store(content), key, source, sender, name)

    def register(self, content, key=None, source="http", sender="s", name="a.png"):
        arrival = Arrival(content, name, source, sender, key)
        return self.database.write(lambda c: arrivals.receive(c, arrival, self.blobs.exists))

    def claim(self, owner="p", count=10):
        return self.database.write(lambda c: job_queue.claim(c, self.engine, owner, count))

    def recover(self, blame=job_queue.CRASHED, owner=None):
        return self.database.write(lambda c: job_queue.recover(c, blame, owner))

    def finish(self, claim, result=RESULT, identity=None):
        return self.database.write(lambda c: results.finish(c, claim, [result], identity))

    def remove(self, number, actor="admin"):
        digests = self.database.write(lambda c: arrivals.remove(c, number, actor))
        for sha256 in digests:
            self.unlink(sha256)
        return digests

    def unlink(self, sha256):
        self.database.write(lambda c: arrivals.unlink(c, sha256, self.blobs.remove))

    def rows(self, table, *where):
        with self.database.read() as connection:
            query = select(table).where(*where).order_by(*table.primary_key)
            return connection.execute(query).all()

    def count(self, table):
        with self.database.read() as connection:
            return connection.scalar(select(func.count()).select_from(table))
