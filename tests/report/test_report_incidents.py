"""What happened to the workers, as report.html shows it."""

from shardsgd.coordinator.records import Incident

LOSS = (
    Incident(7, "lost", 1, "its connection <closed>"),
    Incident(7, "recovered", None, "", leaves=4, seconds=0.0123),
    Incident(90, "joined", 1, ""),
)


def test_a_run_in_which_nothing_happened_says_nothing(report):
    assert "What happened to the workers" not in report().text


def test_a_loss_and_what_it_cost_are_there_as_text(report):
    text = report(incidents=LOSS).text
    assert (
        "1 worker lost; 1 worker joined; 1 round held up, for 12.3 ms at the median and 12.3 ms at the most; 4 units of work"
        " computed once more. No step was lost, and no bit changed. step worker what why"
        " 7 1 lost its connection <closed> 90 1 joined "
    ) in text


def test_of_many_incidents_the_last_are_shown(report):
    many = [Incident(step, "lost", step % 2, f"number {step}") for step in range(1000)]
    text = report(incidents=many).text
    assert "The last 20 of 1,000; all are in metrics.jsonl." in text
    assert "number 980" in text
    assert "number 979" not in text
