"""Events of any jobs in any order: numbered without gap, each once, as a plain list would have them."""

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from stores import all_events, incident, log, metrics, new_job, validation

from shardsgd.coordinator.service.jobs import Position
from shardsgd.coordinator.service.states import JobState
from shardsgd.coordinator.service.store import JobStore

EVENTS = st.builds(lambda make, step: make(step), st.sampled_from([metrics, validation, incident]), st.integers(0, 12))
BATCHES = st.lists(EVENTS | st.sampled_from([log("a"), log("b")]), max_size=6)
CHANGES = st.sampled_from(["change", "open again"])


class Model:
    """A job's events as a list of bodies."""

    def __init__(self):
        self.bodies = [{"state": "QUEUED", "reason": "", "summary": None}]
        self.last = {"metrics": -1, "validation": -1, "incident": -1}
        self.progress = None

    def append(self, events):
        for event in events:
            if event.kind in self.last:
                step = event.body["step"]
                if event.kind != "incident" and step <= self.last[event.kind]:
                    continue
                self.last[event.kind] = max(self.last[event.kind], step)
            self.bodies.append(event.body)
            if event.kind == "metrics":
                self.progress = event.body

    def change(self):
        state = "PAUSED" if [body for body in self.bodies if "state" in body][-1]["state"] == "QUEUED" else "QUEUED"
        self.bodies.append({"state": state, "reason": "", "summary": None})
        return JobState(state)


@given(st.lists(st.tuples(st.integers(0, 2), BATCHES | CHANGES), max_size=12))
def test_any_events_are_as_in_a_list(calls):
    with tempfile.TemporaryDirectory() as folder:
        store = JobStore(Path(folder))
        ids = [store.create(new_job())[0].job_id for _ in range(3)]
        models = [Model() for _ in ids]
        for job, what in calls:
            model, job_id = models[job], ids[job]
            if what == "open again":
                store.close()
                store = JobStore(Path(folder))
            elif what == "change":
                assert store.change(job_id, state=model.change(), at=1.0).last_sequence == len(model.bodies)
            else:
                model.append(what)
                assert store.append(job_id, what) == len(model.bodies)
        with closing(store):
            for model, job_id in zip(models, ids, strict=True):
                events = all_events(store, job_id)
                assert [event.sequence for event in events] == list(range(1, len(model.bodies) + 1))
                assert [event.body for event in events] == model.bodies
                record = store.get(job_id)
                assert (record.last_sequence, record.progress) == (len(events), model.progress)
                assert store.position(job_id) == Position(*model.last.values())
